"""How well a masker answers boxes and points: python -m scripts.train_tiny.masker_quality --data D --masker FOLDER.

D is a data set in COCO's panoptic layout with its `categories.txt`; the answer is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retclip.adapters.promptable import PromptedMasker
from retclip.adapters.sam_grid import PUBLISHED, GridFilters, SamGrid
from retclip.adapters.transformers_sam import load_transformers_sam
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import MaskerSettings, ProposalSettings
from retclip.training.coco_panoptic import Folders, read_annotations, read_pair, targets_of
from retclip.training.prompts import noisy_boxes
from retclip.vocabularies import load_vocabulary

NOISE, MOST_NOISE = 0.1, 20.0
FOUND = 0.5


def masker_quality(masker: PromptedMasker, data: Path, most: int, filters: GridFilters = PUBLISHED) -> dict[str, float]:
    """Means over all segments of the first `most` validation pictures, things and stuff apart.

    Mean IoU of the masks from exact and from noisy boxes; share of the segments that a proposal from a grid of points
    meets with an IoU of at least one half; proposals per picture.
    """
    vocabulary = load_vocabulary(str(data / "categories.txt"))
    values: dict[str, list[float]] = defaultdict(list)
    for picture, categories, truth in _annotated(data, vocabulary, most):
        kinds = ["things" if category.is_thing else "stuff" for category in categories]
        answers = _answers_to_boxes(masker, picture, truth)
        for points in (16, 32):
            grid = SamGrid(masker, ProposalSettings(kind="sam-grid", grid=points), filters)
            [proposals] = grid.propose([picture], vocabulary)
            values[f"proposals of grid {points}"].append(len(proposals.masks))
            ious = pairwise_iou(_pixels(proposals.masks), truth)
            answers[f"recall of grid {points}"] = (
                (ious.amax(0) >= FOUND).float() if len(ious) else torch.zeros(len(truth))
            )
        for name, numbers in answers.items():
            for kind, number in zip(kinds, numbers.tolist(), strict=True):
                values[f"{name}, {kind}"].append(number)
    return {name: round(float(np.mean(numbers)), 4) for name, numbers in sorted(values.items())}


def _annotated(data: Path, vocabulary: Vocabulary, most: int) -> Iterator[tuple[Picture, list[Category], Tensor]]:
    """Pictures with the categories (n) and masks (n, H, W) bool of their segments."""
    for entry in read_annotations(Folders.of_coco(data, "val"), vocabulary)[:most]:
        pixels, ids = read_pair(entry)
        targets = targets_of(ids, entry.columns)
        picture = Picture(pixels, sha256="", name=entry.image.name)
        yield picture, [vocabulary[column] for column in targets.labels.tolist()], targets.masks


def _answers_to_boxes(masker: PromptedMasker, picture: Picture, truth: Tensor) -> dict[str, Tensor]:
    answers = {}
    for name, noise in (("IoU from exact boxes", 0.0), ("IoU from noisy boxes", NOISE)):
        boxes = noisy_boxes(truth, noise, MOST_NOISE, np.random.default_rng(0))
        [found] = masker.masks([picture.pixels], [boxes])
        answers[name] = pairwise_iou(_pixels(found.masks), truth).diagonal()
    return answers


def _pixels(masks: MaskSet) -> Tensor:
    """(N, H, W) bool at the size of the picture."""
    return masks.band(0, masks.image_size[0]) >= 0.5


def pairwise_iou(found: Tensor, truth: Tensor) -> Tensor:
    """Masks (N, H, W) and (n, H, W) bool -> (N, n)."""
    rows, columns = found.flatten(1).float(), truth.flatten(1).float()
    both = rows @ columns.T
    return both / (rows.sum(1)[:, None] + columns.sum(1)[None] - both).clamp_min(1)


def main() -> None:
    """Parse the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masker", type=Path, required=True, help="folder as transformers saves a SAM")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--quality", type=float, default=PUBLISHED.least_quality, help="of the grid's masks, predicted")
    parser.add_argument("--stability", type=float, default=PUBLISHED.least_stability, help="of the grid's masks")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = MaskerSettings(library="sam", model=arguments.masker.name)
    masker = load_transformers_sam(settings, arguments.masker, torch.device("cpu"))
    filters = GridFilters(arguments.quality, arguments.stability)
    print(json.dumps(masker_quality(masker, arguments.data, arguments.pictures, filters), indent=2))


if __name__ == "__main__":
    main()
