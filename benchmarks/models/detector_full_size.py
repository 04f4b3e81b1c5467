"""Grounding DINO at its released sizes with random weights: any number of classes, pictures of any size and mode.

    python benchmarks/models/detector_full_size.py --vocab bert-base-uncased-vocab.txt --classes 1 40 300 1200

Weights decide what is found, not how long it takes or whether it works. Folders are written and read as released ones
are; pictures go through the package's own decoder. Random scores of many words are small: with the threshold of 0.05
nearly every query counts, which is the worst case for what follows the network.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import BertTokenizer, GroundingDinoForObjectDetection, GroundingDinoImageProcessor

from retclip.adapters.grounding_dino import GroundingDino, load_grounding_dino
from retclip.adapters.grounding_dino.original_checkpoint import original_config
from retclip.core.images import decode_picture
from retclip.ports.detection import Detections
from retclip.presets.networks import DetectorSettings

SMALL = (240, 320)
THRESHOLD = 0.05


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab", type=Path, required=True, help="vocab.txt of bert-base-uncased")
    parser.add_argument("--sizes", nargs="+", choices=["tiny", "base"], default=["tiny", "base"])
    parser.add_argument("--classes", nargs="+", type=int, default=[1, 40, 300, 1200])
    parser.add_argument("--most", type=int, default=1200, help="classes asked of the larger network")
    parser.add_argument("--short-side", type=int, default=800, help="pixels that pictures are scaled to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, default=Path(__file__).with_suffix(".json"))
    return parser.parse_args()


def write_folder(folder: Path, size: str, options: argparse.Namespace) -> None:
    """A network of the released size as transformers saves it."""
    folder.mkdir()
    torch.manual_seed(0)
    GroundingDinoForObjectDetection(original_config(f"grounding-dino-{size}")).save_pretrained(folder)
    sides = {"shortest_edge": options.short_side, "longest_edge": options.short_side * 1333 // 800}
    GroundingDinoImageProcessor(size=sides).save_pretrained(folder)
    (folder / "vocab.txt").write_bytes(options.vocab.read_bytes())
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)


def picture(mode: str, height: int, width: int) -> Any:
    """RGB pixels of a smooth random picture that was stored in this mode."""
    rough = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    stored = Image.fromarray(rough).resize((width, height)).convert(mode)
    data = io.BytesIO()
    stored.save(data, "PNG")
    return decode_picture(data.getvalue(), mode).pixels


def names(count: int, vocab: Path) -> list[str]:
    """`count` names of one and two whole words."""
    words = [word for word in vocab.read_text().splitlines() if word.isalpha() and word.isascii() and len(word) > 4]
    return [words[index] if index % 2 else f"{words[index]} {words[-index - 1]}" for index in range(count)]


def cases(size: str, options: argparse.Namespace) -> Iterator[tuple[str, Any, list[str]]]:
    """What is asked: its description, pixels, names."""
    most = options.most if size == "base" else max(options.classes)
    for count in options.classes:
        if count <= most:
            yield f"{count} classes", picture("RGB", *SMALL), names(count, options.vocab)
    for mode, height, width in (("RGB", 3000, 4000), ("RGB", 4000, 200), ("L", *SMALL), ("RGBA", *SMALL)):
        yield f"{mode} {width} x {height}", picture(mode, height, width), names(1, options.vocab)


def row(detector: GroundingDino, pixels: Any, asked: list[str]) -> dict[str, Any]:
    """Seconds of one picture and what came back."""
    start = time.perf_counter()
    (found,) = detector.detect([pixels], [asked], THRESHOLD)
    return {"seconds": round(time.perf_counter() - start, 2), "boxes": len(found), "proper": proper(found, pixels)}


def proper(found: Detections, pixels: Any) -> bool:
    """Whether boxes and scores are finite, inside, and in order."""
    limits = found.boxes.new_tensor([pixels.shape[1], pixels.shape[0]])
    return bool(
        found.boxes.isfinite().all()
        and (found.boxes[:, :2] >= 0).all()
        and (found.boxes[:, 2:] <= limits).all()
        and (found.boxes[:, 2:] > found.boxes[:, :2]).all()
        and (found.scores.diff() <= 0).all()
    )


def measure(size: str, place: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Load one network, then ask it everything."""
    write_folder(place / size, size, options)
    start = time.perf_counter()
    settings = DetectorSettings("grounding_dino", f"IDEA-Research/grounding-dino-{size}")
    detector = load_grounding_dino(settings, place / size, torch.device(options.device))
    yield {"network": size, "case": "load", "seconds": round(time.perf_counter() - start, 2)}
    for case, pixels, asked in cases(size, options):
        yield {"network": size, "case": case, **row(detector, pixels, asked)}


def main() -> None:
    """Measure, print, write."""
    options = parse()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for size in options.sizes:
            for result in measure(size, Path(place), options):
                rows.append(result)
                print("  ".join(f"{key} {value}" for key, value in result.items()), flush=True)
    content = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "short side": options.short_side,
        "rows": rows,
    }
    options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
