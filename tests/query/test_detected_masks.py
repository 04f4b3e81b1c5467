"""The training-free proposer: boxes of every asked class, masks from the boxes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from retclip.core.vocabulary import Category, Vocabulary
from retclip.ports.detection import Detections
from retclip.presets import ProposalSettings
from retclip.query.detected_masks import DetectedMasks
from tests.fakes import BoxFiller, ColourDetector, picture_of

VOCABULARY = Vocabulary("v", (Category(0, ("red", "scarlet")), Category(1, ("blue",))))


def settings(**changes: float) -> ProposalSettings:
    return ProposalSettings(kind="regions", **changes)  # type: ignore[arg-type]


def test_every_class_is_looked_for_by_its_first_name() -> None:
    detector = ColourDetector()
    pictures = [picture_of(["red", "green", "blue"]), picture_of(["grey"])]
    first, second = DetectedMasks(detector, BoxFiller(), settings(box_threshold=0.95)).propose(pictures, VOCABULARY)
    assert detector.asked == [("red", "blue")] * 2
    assert (len(first.masks), len(second.masks)) == (2, 0)
    assert first.masks.origin == "gdino-sam"
    covered = torch.stack([first.masks.region(row) for row in range(2)]).float().mean(dim=(1, 2))
    assert covered.tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.1)


class ScriptedDetector:
    """Gives the same boxes for every picture."""

    name = "scripted@00000000"

    def __init__(self, boxes: Sequence[tuple[float, float, float, float]]) -> None:
        self._boxes = torch.tensor(boxes)

    def detect(self, pictures, phrases, threshold):
        count = len(self._boxes)
        scores = torch.linspace(0.9, 0.5, count)
        return [Detections(self._boxes, torch.zeros(count, dtype=torch.int64), scores, ("",) * count)] * len(pictures)


def test_alike_masks_are_one_proposal_and_the_surest_stay() -> None:
    boxes = [(0.0, 0.0, 24.0, 24.0), (1.0, 0.0, 24.0, 24.0), (24.0, 0.0, 48.0, 24.0), (0.0, 0.0, 48.0, 24.0)]
    proposer = DetectedMasks(ScriptedDetector(boxes), BoxFiller(), settings())
    masks = proposer.propose([picture_of(["red"])], VOCABULARY)[0].masks
    assert len(masks) == 3
    fewer = DetectedMasks(ScriptedDetector(boxes), BoxFiller(), settings(max_regions=1))
    kept = fewer.propose([picture_of(["red"])], VOCABULARY)[0].masks
    assert len(kept) == 1
    assert torch.equal(kept.region(0), masks.region(0))
