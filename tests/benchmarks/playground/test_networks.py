"""Detector, masker and CLIP judged one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.playground.networks import Tallies, match_boxes, overlap_table
from benchmarks.playground.world import IS_THING
from retclip.core.masks import MaskSet
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.evaluation.truth import TruthMap
from retclip.ports.detection import Detections


def test_a_box_finds_one_segment_of_its_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    found = Detections(
        torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [19, 20, 30, 30]]),
        torch.tensor([4, 4, 5, 7]),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        ("p",) * 4,
    )
    assert match_boxes(found, boxes, [4, 7]).tolist() == [0, -1, -1, 1]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), ())
    assert match_boxes(nothing, boxes, [4, 7]).tolist() == []


def test_overlaps_are_counted_by_pixels() -> None:
    ids = np.zeros((4, 4), np.int32)
    ids[:2], ids[2:] = 7, 3
    truth = TruthMap(ids, (MapSegment(3, 1), MapSegment(7, 2)), ids)
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :3] = True
    masks[1, 3] = True
    table = overlap_table(MaskSet(masks, (4, 4), "given"), truth)
    assert table.tolist() == [[4 / 16, 8 / 12], [4 / 8, 0]]


def test_shares_are_means_over_groups() -> None:
    tallies = Tallies()
    thing, stuff = (int(np.flatnonzero(chosen)[0]) for chosen in (IS_THING, ~IS_THING))
    tallies.add("row", [1, 0, 1], [thing, thing, stuff])
    tallies.add("empty", [], [])
    shares = tallies.shares()
    assert shares["row"]["things"] == 50.0
    assert shares["row"]["stuff"] == 100.0
    assert shares["row"]["all"] == pytest.approx(200 / 3)
    assert shares["empty"] == {}
