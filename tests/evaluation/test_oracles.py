from __future__ import annotations

import numpy as np
import pytest
import torch

from retclip.core.errors import InputError
from retclip.core.masks import MaskSet
from retclip.evaluation.oracle_names import parse_oracles
from retclip.evaluation.oracles import (
    best_proposals,
    only_present,
    present_columns,
    restrict,
    true_labels,
)
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.evaluation.truth import TruthMap
from retclip.query.matching import LabelMap
from retclip.query.scoring import Observation

# Left half column 0, right half column 2, one unannotated pixel row.
IDS = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [0, 0, 0, 0]], np.int32)
TRUTH = TruthMap(
    IDS, (MapSegment(1, 10), MapSegment(2, 12)), np.array([[0, 0, 2, 2], [0, 0, 2, 2], [-1, -1, -1, -1]], np.int32)
)


def masks_of(*boxes: tuple[int, int, int, int]) -> MaskSet:
    masks = torch.zeros(len(boxes), 3, 4, dtype=torch.bool)
    for mask, (y0, y1, x0, x1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return MaskSet(masks, (3, 4), "given")


def test_perfect_labels_move_the_best_score_and_keep_its_height():
    masks = masks_of((0, 2, 0, 3), (0, 3, 2, 4), (2, 3, 0, 4))
    scores = torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.7, 0.1]])
    moved = true_labels(masks, scores, TRUTH)
    assert moved.tolist()[0] == pytest.approx([0.6, 0.0, 0.0])
    assert moved.tolist()[1] == pytest.approx([0.0, 0.0, 0.5])
    # Nothing is annotated below the third proposal: nothing is given away.
    assert moved.tolist()[2] == pytest.approx([0.2, 0.7, 0.1])


def test_selection_keeps_the_best_proposal_of_every_segment():
    masks = masks_of((0, 2, 0, 3), (0, 2, 0, 2), (0, 1, 2, 4), (2, 3, 0, 4))
    assert best_proposals(masks, TRUTH).tolist() == [1, 2]
    assert best_proposals(masks_of((2, 3, 0, 4)), TRUTH).tolist() == []


def test_a_known_class_list_asks_only_its_classes():
    labels = LabelMap({7: 0, 8: 1, 9: 2}, (), ())
    assert present_columns(TRUTH) == {0, 2}
    assert only_present(labels, TRUTH).column == {7: 0, 9: 2}
    clip = torch.tensor([[0.2, 0.6, 0.2], [0.0, 1.0, 0.0]])
    restricted = restrict(Observation(torch.zeros(2, 1), clip), present_columns(TRUTH)).clip
    assert restricted.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]


def test_oracle_names_are_checked():
    assert parse_oracles(" labels, selection ") == {"labels", "selection"}
    assert parse_oracles(None) == frozenset()
    with pytest.raises(InputError, match="Unknown oracle 'label'"):
        parse_oracles("label")
