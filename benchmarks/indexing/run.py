"""Where the time of a build goes, and how it compares with a plain loop over pictures and classes.

The networks are random, of the released sizes (`--networks released`: Grounding DINO tiny, SAM 2.1 tiny, CLIP ViT-B/16)
or very small (`--networks tiny`); random weights cost the same time as trained ones. Two boxes of each label are kept.

    python -m benchmarks.indexing.run --root $RETCLIP_TEST_DATA/tiny_coco/tiny_coco --pictures 8 --networks released \
        --vocab $RETCLIP_TEST_DATA/text/bert-base-uncased-vocab.txt --json benchmarks/indexing/indexing.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model

from benchmarks.models.detector_full_size import write_folder
from retclip.adapters.grounding_dino import load_grounding_dino
from retclip.adapters.open_clip import load_open_clip
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.corpora import open_corpus
from retclip.indexer.build import build
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import FoundRegions
from retclip.ports.detection import Detections
from retclip.ports.encoders import embed_regions
from retclip.presets import DetectorSettings, EncoderSettings, MaskerSettings
from retclip.shards import Database
from tests.adapters.tiny_clip import write_tiny_clip
from tests.adapters.tiny_models import write_tiny_grounding_dino
from tests.adapters.tiny_sam import write_tiny_sam2

_PROCESSOR = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


class Clock:
    """Seconds and calls by stage."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block; a GPU has finished at its end."""
        start = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start
        self.calls[name] += 1


class Timed:
    """A network whose named methods are timed; everything else is passed on."""

    def __init__(self, network: Any, clock: Clock, methods: dict[str, str]) -> None:
        self._network, self._clock, self._methods = network, clock, methods

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._network, name)
        if name not in self._methods:
            return value

        def timed(*arguments: Any) -> Any:
            with self._clock.stage(self._methods[name]):
                return value(*arguments)

        return timed


class FewBoxes:
    """A detector of which the best boxes of each phrase are kept: random weights like any number of places."""

    def __init__(self, detector: Any, most: int) -> None:
        self._detector, self._most = detector, most
        self.name = detector.name

    def detect(self, pictures: list[Any], phrases: list[list[str]], threshold: float) -> list[Detections]:
        """See `Detector`."""
        found = self._detector.detect(pictures, phrases, threshold)
        return [boxes.select(self._best(boxes.phrases)) for boxes in found]

    def _best(self, phrases: Tensor) -> Tensor:
        seen: Counter[int] = Counter()
        kept = []
        for row, phrase in enumerate(phrases.tolist()):
            seen[phrase] += 1
            if seen[phrase] <= self._most:
                kept.append(row)
        return torch.tensor(kept, dtype=torch.int64)


class Networks:
    """Detector, masker and encoder, with a clock on what they compute."""

    def __init__(self, options: argparse.Namespace, folder: Path, device: torch.device) -> None:
        self.clock = Clock()
        make: Callable[..., tuple[Path, Path, Path]] = released if options.networks == "released" else tiny
        places = make(folder, options)
        detector = load_grounding_dino(DetectorSettings("grounding_dino", "grounding-dino-tiny"), places[0], device)
        masker = load_transformers_sam(MaskerSettings("sam2", "facebook/sam2.1-hiera-tiny"), places[1], device)
        sides = {"short_side": 384, "long_side": 1024} if options.networks == "released" else {"short_side": 64}
        clip = EncoderSettings("open_clip", "ViT-B-16", weights=str(places[2]), **sides)
        encoder = load_open_clip(clip, places[2], device)
        self.detector = FewBoxes(Timed(detector, self.clock, {"detect": "detector"}), options.boxes)
        self.masker = Timed(masker, self.clock, {"masks": "masker"})
        self.encoder = Timed(encoder, self.clock, {"encode_images": "encoder", "embed": "pooling"})


def released(folder: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Random networks of the released sizes."""
    write_folder(folder / "detector", "tiny", options)
    torch.manual_seed(0)
    Sam2Model(Sam2Config()).save_pretrained(folder / "masker")  # the library's default is the tiny one
    (folder / "masker" / "preprocessor_config.json").write_text(json.dumps(_PROCESSOR))
    clip = open_clip.create_model("ViT-B-16", pretrained=None).state_dict()
    save_file({key: value.contiguous() for key, value in clip.items()}, folder / "clip.safetensors")
    return folder / "detector", folder / "masker", folder / "clip.safetensors"


def tiny(folder: Path, options: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Very small random networks: their own time is so short that everything else shows."""
    detector = write_tiny_grounding_dino(folder / "detector")
    return detector, write_tiny_sam2(folder / "masker", 0), write_tiny_clip(folder / "clip", "vit")


def our_build(networks: Networks, options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The product's own walk: batches, one pass of each backbone, a committed database."""
    corpus = open_corpus("coco", options.root, "train")
    source = FoundRegions(networks.detector, networks.masker, options.threshold)
    request = BuildRequest(corpus, source, limit=options.pictures, batch=options.batch, thumbnails=0)
    database = Database.create(place, networks.encoder.space, {"name": "benchmark"})
    networks.clock.__init__()  # type: ignore[misc]
    start = time.perf_counter()
    report = build(database, request, networks.encoder, "build")
    return summary(networks.clock, time.perf_counter() - start, options.pictures, report.added)


def plain_loop(networks: Networks, options: argparse.Namespace) -> dict[str, Any]:
    """What scripts do: one picture, one class at a time; every region is cut out and encoded on its own."""
    corpus = open_corpus("coco", options.root, "train")
    names = {item.raw: item.name for item in corpus.classes}
    networks.clock.__init__()  # type: ignore[misc]
    vectors: list[Tensor] = []
    start = time.perf_counter()
    for image, _ in zip(corpus.images(), range(options.pictures), strict=False):
        pixels = image.read().pixels
        for label in dict.fromkeys(label.name for label in image.labels):
            found = networks.detector.detect([pixels], [[names[label]]], options.threshold)[0]
            masked = networks.masker.masks([pixels], [found.boxes])[0]
            for row, box in enumerate(found.boxes.tolist()):
                x0, y0, x1, y1 = int(box[0]), int(box[1]), int(np.ceil(box[2])), int(np.ceil(box[3]))
                inside = masked.masks.region(row)[y0:y1, x0:x1].cpu()
                if not inside.any():
                    continue
                features = networks.encoder.encode_images([pixels[y0:y1, x0:x1]])[0]
                vectors.append(embed_regions(networks.encoder, features, inside[None])[0])
    return summary(networks.clock, time.perf_counter() - start, options.pictures, len(vectors))


def summary(clock: Clock, seconds: float, pictures: int, segments: int) -> dict[str, Any]:
    """Seconds by stage, and what was no network's time."""
    models = sum(clock.seconds.values())
    return {
        "seconds": round(seconds, 3),
        "pictures_per_second": round(pictures / seconds, 4),
        "segments": segments,
        "stages": {name: round(value, 3) for name, value in clock.seconds.items()},
        "calls": dict(clock.calls),
        "overhead_seconds": round(seconds - models, 3),
        "overhead_percent_of_models": round(100 * (seconds - models) / models, 1),
    }


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="tiny_coco")
    parser.add_argument("--networks", choices=("released", "tiny"), default="released")
    parser.add_argument("--vocab", type=Path, help="bert-base-uncased vocabulary, for released sizes")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--boxes", type=int, default=2, help="kept of each label")
    parser.add_argument("--short-side", type=int, default=480, help="of the detector's input")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure, print, and keep."""
    options = parse()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        networks = Networks(options, folder, torch.device(options.device))
        plain = plain_loop(networks, options)
        ours = our_build(networks, options, folder / "benchmark.retdb")
    document = {
        "networks": options.networks,
        "pictures": options.pictures,
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "ours": ours,
        "plain_loop": plain,
        "times_faster": round(ours["pictures_per_second"] / plain["pictures_per_second"], 2),
    }
    print(json.dumps(document, indent=2))
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
