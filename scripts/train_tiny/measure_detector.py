"""How well a detector finds what is annotated: python -m scripts.train_tiny.measure_detector --data D --weights W."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, masks_to_boxes

from retclip.adapters.grounding_dino import GroundingDino, load_grounding_dino
from retclip.core.vocabulary import Vocabulary
from retclip.presets.networks import DetectorSettings
from retclip.training.coco_panoptic import Folders, PanopticPicture, read_annotations, read_pair
from retclip.vocabularies import load_vocabulary

THRESHOLDS = (0.2, 0.25, 0.3, 0.35)
_SAME = 0.5


class LabelledBoxes(NamedTuple):
    """boxes (n, 4) x0, y0, x1, y1 in pixels, columns (n,) int64 of the vocabulary, scores (n,), best first."""

    boxes: Tensor
    columns: Tensor
    scores: Tensor


def found_by(truth: LabelledBoxes, guess: LabelledBoxes) -> Tensor:
    """Per guess (m,) the truth it finds, -1 for none: the best of its class, at IoU .5, that no better guess has."""
    overlaps = box_iou(guess.boxes, truth.boxes)
    overlaps[guess.columns[:, None] != truth.columns[None]] = 0
    matches = torch.full((len(guess.boxes),), -1)
    for row in range(len(guess.boxes) if len(truth.boxes) else 0):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] >= _SAME:
            matches[row] = best
            overlaps[:, best] = 0
    return matches


def annotated_boxes(picture: PanopticPicture) -> tuple[np.ndarray, LabelledBoxes]:
    """Pixels (H, W, 3) and the boxes of all segments; their scores are 1."""
    pixels, ids = read_pair(picture)
    masks = torch.from_numpy(ids)[None] == torch.tensor(list(picture.columns)).view(-1, 1, 1)
    boxes = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    return pixels, LabelledBoxes(boxes, torch.tensor(list(picture.columns.values())), torch.ones(len(boxes)))


def measure(detector: GroundingDino, pictures: Sequence[PanopticPicture], vocabulary: Vocabulary) -> None:
    """Print recall of things and of stuff, and precision, for every threshold; all classes are asked."""
    is_thing = torch.tensor([category.is_thing for category in vocabulary])
    counts = {threshold: torch.zeros(3) for threshold in THRESHOLDS}
    totals = torch.zeros(2)
    guesses = dict.fromkeys(THRESHOLDS, 0)
    for picture in pictures:
        pixels, truth = annotated_boxes(picture)
        (found,) = detector.detect([pixels], [vocabulary.names], min(THRESHOLDS))
        matches = found_by(truth, LabelledBoxes(found.boxes, found.phrases, found.scores))
        things = is_thing[truth.columns]
        totals += torch.tensor([things.sum(), (~things).sum()])
        for threshold in THRESHOLDS:
            kept = found.scores >= threshold
            hit = things[matches[kept & (matches >= 0)]]
            counts[threshold] += torch.tensor([hit.sum(), (~hit).sum(), len(hit)])
            guesses[threshold] += int(kept.sum())
    for threshold, (thing, stuff, hits) in counts.items():
        recalls = f"recall of things {thing / totals[0]:.3f}, of stuff {stuff / totals[1]:.3f}"
        print(f"  threshold {threshold:.2f}: {recalls}, precision {hits / max(1, guesses[threshold]):.3f}")


def main() -> None:
    """Parse the command line and measure every data set's val split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets a and b")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the network")
    parser.add_argument("--pictures", type=int, default=200, help="of each data set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = DetectorSettings(library="grounding_dino", model="playground")
    detector = load_grounding_dino(settings, arguments.weights, torch.device("cpu"))
    for look in ("a", "b"):
        vocabulary = load_vocabulary(str(arguments.data / look / "categories.txt"))
        pictures = read_annotations(Folders.of_coco(arguments.data / look, "val"), vocabulary)
        print(f"{look}, {len(pictures[: arguments.pictures])} pictures")
        measure(detector, pictures[: arguments.pictures], vocabulary)


if __name__ == "__main__":
    main()
