"""How fast panoptic quality is counted: ours, torchmetrics' and the restated panopticapi, on the same maps.

    python benchmarks/metrics/run.py --root $RETCLIP_TEST_DATA/coco_panoptic --json metrics.json

Real COCO id images are the truth; the prediction is the truth of the same photo moved by some pixels, with every fifth
thing relabelled. All three must agree before a time is printed. Maps are decoded beforehand.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from panoptic_reference import ReferenceQuality
from torchmetrics.detection import PanopticQuality as TorchmetricsQuality

from retclip.core.images import read_annotation
from retclip.core.panoptic import rgb_to_ids
from retclip.core.vocabulary import Category, Vocabulary
from retclip.evaluation.panoptic_quality import MapSegment, PanopticQuality

ROUNDS = 3
SHIFT = 6  # pixels


def load_pairs(root: Path, most: int) -> tuple[Vocabulary, list[dict[str, Any]]]:
    """Maps and segment lists of the first photos without crowds (torchmetrics has none)."""
    content = json.loads((root / "annotations" / "panoptic_val2017.json").read_text())
    categories = content["categories"]
    vocabulary = Vocabulary("coco", tuple(Category(c["id"], (c["name"],), bool(c["isthing"])) for c in categories))
    things = [category.id for category in vocabulary if category.is_thing]
    following = dict(zip(things, things[1:] + things[:1], strict=True))
    pairs = []
    for annotation in content["annotations"]:
        segments = annotation["segments_info"]
        if any(segment["iscrowd"] for segment in segments) or len(pairs) == most:
            continue
        colours = read_annotation(root / "annotations" / "panoptic_val2017" / annotation["file_name"])
        truth = rgb_to_ids(colours.astype(np.uint8))
        # torchmetrics excuses pixels without prediction, panopticapi does not: here every pixel is predicted.
        predicted = np.where(truth == 0, max(segments, key=lambda s: s["area"])["id"], truth)
        predicted = np.roll(predicted, SHIFT, axis=1)
        # Stuff keeps its label: torchmetrics would merge two stuff segments of one class.
        relabelled = [
            {**s, "category_id": following.get(s["category_id"], s["category_id"])} if n % 5 == 0 else s
            for n, s in enumerate(segments)
        ]
        pairs.append({"truth": truth, "predicted": predicted, "truth_list": segments, "predicted_list": relabelled})
    return vocabulary, pairs


def count_ours(vocabulary: Vocabulary, pairs: list[dict[str, Any]]) -> float:
    """PQ over all classes by retclip."""
    quality = PanopticQuality(vocabulary)
    for number, pair in enumerate(pairs):
        truth, predicted = (
            [MapSegment(s["id"], s["category_id"], bool(s["iscrowd"])) for s in pair[key]]
            for key in ("truth_list", "predicted_list")
        )
        quality.add(pair["truth"], truth, pair["predicted"], predicted, str(number))
    return quality.result().all.pq


def count_reference(vocabulary: Vocabulary, pairs: list[dict[str, Any]]) -> float:
    """The same by the restated panopticapi."""
    quality = ReferenceQuality()
    for pair in pairs:
        quality.add(pair["truth"], pair["truth_list"], pair["predicted"], pair["predicted_list"])
    return quality.averages([category.id for category in vocabulary])["pq"]


def count_torchmetrics(vocabulary: Vocabulary, planes: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The same by torchmetrics, from prepared (1, H, W, 2) tensors; making them is not part of the time."""
    things = {c.id for c in vocabulary if c.is_thing}
    stuffs = {c.id for c in vocabulary if not c.is_thing}
    metric = TorchmetricsQuality(things=things, stuffs=stuffs, allow_unknown_preds_category=True)
    for truth, predicted in planes:
        metric.update(predicted, truth)
    return float(metric.compute())


def as_planes(pair: dict[str, Any], role: str) -> torch.Tensor:
    """(1, H, W, 2) int64: category and instance; void gets a category that nobody knows."""
    ids, segments = pair[role], sorted(pair[f"{role}_list"], key=lambda s: s["id"])
    places = np.searchsorted([s["id"] for s in segments], ids).clip(0, len(segments) - 1)
    categories = np.array([s["category_id"] for s in segments])[places]
    return torch.from_numpy(np.stack([np.where(ids == 0, 10_000, categories), ids], axis=-1).astype(np.int64))[None]


def timed(call: Callable[[], float]) -> tuple[float, float]:
    """Value and median seconds of a few rounds."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        value = call()
        seconds.append(time.perf_counter() - start)
    return value, statistics.median(seconds)


def main() -> None:
    """Run the comparison and print one row per implementation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="COCO panoptic folder")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary, pairs = load_pairs(options.root, options.images)
    planes = [(as_planes(pair, "truth"), as_planes(pair, "predicted")) for pair in pairs]
    calls = {
        "retclip": lambda: count_ours(vocabulary, pairs),
        "panopticapi, restated": lambda: count_reference(vocabulary, pairs),
        "torchmetrics": lambda: count_torchmetrics(vocabulary, planes),
    }
    figures = {name: timed(call) for name, call in calls.items()}
    ours, ours_seconds = figures["retclip"]
    print(f"{len(pairs)} photos, one thread, {platform.machine()}")
    rows = []
    for name, (pq, seconds) in figures.items():
        row = {"name": name, "pq": pq, "ms_per_photo": 1000 * seconds / len(pairs), "ratio": seconds / ours_seconds}
        print(f"{name:<24} PQ {100 * pq:8.4f}   {row['ms_per_photo']:8.2f} ms/photo   x {row['ratio']:5.1f}")
        rows.append(row)
    # torchmetrics adds in float32.
    if ours != figures["panopticapi, restated"][0] or abs(ours - figures["torchmetrics"][0]) > 1e-5:
        raise SystemExit("the implementations do not agree")
    if options.json:
        options.json.write_text(json.dumps({"images": len(pairs), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
