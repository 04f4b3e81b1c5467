"""Matching and losses of a detector."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retclip.training.detection import BoxGuess, BoxTargets, DetectionLossSettings, detection_losses, match_boxes

SETTINGS = DetectionLossSettings()
BOXES = torch.tensor([[0.3, 0.3, 0.2, 0.4], [0.7, 0.6, 0.4, 0.2]])
TOKENS = torch.tensor([[0, 1, 1, 0, 0], [0, 0, 0, 1, 0]], dtype=torch.bool)
TARGETS = BoxTargets(BOXES, TOKENS)


def perfect(sure=8.0):
    """Three queries: the second thing, nothing, the first thing."""
    boxes = torch.stack([BOXES[1], torch.tensor([0.1, 0.9, 0.1, 0.1]), BOXES[0]])
    named = torch.stack([TOKENS[1], torch.zeros(5, dtype=torch.bool), TOKENS[0]])
    return BoxGuess(torch.where(named, sure, -sure)[None], boxes[None])


def test_each_thing_gets_the_query_that_names_and_encloses_it():
    guess = perfect()
    found = match_boxes(BoxGuess(guess.logits[0], guess.boxes[0]), TARGETS, 1, SETTINGS)
    assert dict(zip(found.queries.tolist(), found.targets.tolist(), strict=True)) == {0: 1, 2: 0}


def test_with_copies_every_thing_is_matched_that_often():
    guess = BoxGuess(torch.randn(9, 5), torch.rand(9, 4) * 0.5 + 0.1)
    found = match_boxes(guess, TARGETS, 3, SETTINGS)
    assert sorted(found.targets.tolist()) == [0, 0, 0, 1, 1, 1]
    assert len(set(found.queries.tolist())) == 6


def test_a_shortage_of_queries_leaves_things_unmatched():
    guess = BoxGuess(torch.randn(3, 5), torch.rand(3, 4) * 0.5 + 0.1)
    assert len(match_boxes(guess, TARGETS, 2, SETTINGS).queries) == 3


@given(st.integers(0, 10_000))
def test_with_box_distance_alone_the_assignment_is_the_cheapest_of_all(seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand((4, 4), generator=generator)
    settings = DetectionLossSettings(classification=0, distance=1, overlap=0)
    found = match_boxes(BoxGuess(torch.zeros(4, 5), boxes), TARGETS, 1, settings)
    cost = (boxes[:, None] - BOXES[None]).abs().sum(2)
    cheapest = min(float(cost[first, 0] + cost[second, 1]) for first, second in permutations(range(4), 2))
    assert float(cost[found.queries, found.targets].sum()) == pytest.approx(cheapest, abs=1e-5)


def test_a_perfect_guess_costs_nothing_and_a_wrong_name_costs_much():
    losses = detection_losses(perfect(), [TARGETS], 1, SETTINGS)
    assert losses.distance == 0
    assert float(losses.overlap) == pytest.approx(0, abs=1e-6)
    assert losses.classification < 0.01
    silent = perfect()._replace(logits=-perfect().logits)
    assert detection_losses(silent, [TARGETS], 1, SETTINGS).classification > 10


def test_a_score_is_taught_the_overlap_of_its_box():
    box = torch.tensor([[[0.3, 0.3, 0.2, 0.2]]])  # half of the first thing
    target = BoxTargets(BOXES[:1], TOKENS[:1])
    half = torch.full((1, 1, 5), -30.0)
    half[..., 1:3] = 0.0
    logits = half.requires_grad_()
    detection_losses(BoxGuess(logits, box), [target], 1, SETTINGS).classification.backward()
    corners = torch.tensor([[0.2, 0.2, 0.4, 0.4]]), torch.tensor([[0.2, 0.1, 0.4, 0.5]])
    assert float(box_iou(*corners)) == pytest.approx(0.5)
    assert logits.grad.abs().max() < 1e-5


def test_positions_without_a_token_teach_nothing():
    logits = torch.randn(1, 3, 5)
    logits[..., 4] = -torch.inf
    boxes = perfect().boxes.clone().requires_grad_()
    logits.requires_grad_()
    torch.stack(detection_losses(BoxGuess(logits, boxes), [TARGETS], 1, SETTINGS)).sum().backward()
    assert logits.grad.isfinite().all()
    assert not logits.grad[..., 4].any()
    assert logits.grad[..., :4].any()


def test_the_loss_of_a_batch_counts_boxes_not_pictures():
    guess = perfect(sure=1.0)
    moved = guess._replace(boxes=guess.boxes + 0.05)
    single = detection_losses(moved, [TARGETS], 1, SETTINGS)
    empty = BoxTargets(torch.zeros(0, 4), torch.zeros(0, 5, dtype=torch.bool))
    silent = BoxGuess(torch.full_like(guess.logits, -30.0), guess.boxes)
    pair = BoxGuess(torch.cat([moved.logits, silent.logits]), torch.cat([moved.boxes, silent.boxes]))
    for one, both in zip(single, detection_losses(pair, [TARGETS, empty], 1, SETTINGS), strict=True):
        torch.testing.assert_close(one, both)


def test_a_batch_without_things_still_has_a_gradient():
    logits = torch.zeros(1, 3, 5, requires_grad=True)
    boxes = perfect().boxes.clone().requires_grad_()
    empty = BoxTargets(torch.zeros(0, 4), torch.zeros(0, 5, dtype=torch.bool))
    losses = detection_losses(BoxGuess(logits, boxes), [empty], 5, SETTINGS)
    torch.stack(losses).sum().backward()
    assert (logits.grad > 0).all()
    assert not boxes.grad.any()


@pytest.mark.parametrize(
    ("boxes", "tokens"),
    [(torch.zeros(2, 3), TOKENS), (BOXES, TOKENS[:1]), (BOXES, torch.zeros(2, 5, dtype=torch.bool))],
)
def test_targets_that_do_not_fit_are_refused(boxes, tokens):
    with pytest.raises(ValueError, match="BoxTargets"):
        BoxTargets(boxes, tokens)
