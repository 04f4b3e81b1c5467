from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.training.losses import Guess, LossSettings, Targets, match, set_losses
from retclip.training.points import PointSettings, sample_points

SETTINGS = LossSettings(points=PointSettings(loss=64, matching=64))


def random_case(seed, queries=5, targets=3, classes=4):
    generator = torch.Generator().manual_seed(seed)
    guess = Guess(
        torch.randn(1, queries, classes + 1, generator=generator),
        3 * torch.randn(1, queries, 6, 7, generator=generator),
    )
    masks = torch.rand(targets, 12, 14, generator=generator) > 0.5
    return guess, Targets(torch.randint(classes, (targets,), generator=generator), masks), generator


def straightforward_cost(guess, target, points):
    """Cost of every pair, one pair at a time."""
    cost = torch.zeros(guess.class_logits.shape[1], len(target.labels))
    for query in range(cost.shape[0]):
        logits = sample_points(guess.mask_logits[0, query][None], points)[0]
        for index in range(cost.shape[1]):
            truth = sample_points(target.masks[index][None].float(), points)[0]
            probability = guess.class_logits[0, query].softmax(-1)[target.labels[index]]
            overlap = (logits.sigmoid() * truth).sum()
            dice = 1 - (2 * overlap + 1) / (logits.sigmoid().sum() + truth.sum() + 1)
            cost[query, index] = -2 * probability + 5 * F.binary_cross_entropy_with_logits(logits, truth) + 5 * dice
    return cost


@given(seed=st.integers(0, 200), targets=st.integers(0, 4))
@settings(deadline=None, max_examples=25)
def test_matching_is_the_cheapest_of_all_assignments(seed, targets):
    guess, target, generator = random_case(seed, queries=4, targets=targets)
    points = torch.rand(1, 64, 2, generator=generator)
    (found,) = match(guess, [target], SETTINGS, lambda shape: points)
    cost = straightforward_cost(guess, target, points)
    cheapest = min(
        (cost[list(rows), range(targets)].sum().item() for rows in permutations(range(4), targets)), default=0.0
    )
    assert sorted(found.targets.tolist()) == list(range(targets))
    assert found.queries.tolist() == sorted(set(found.queries.tolist()))
    assert cost[found.queries, found.targets].sum().item() == pytest.approx(cheapest, abs=1e-4)


def test_a_perfect_guess_costs_almost_nothing_and_a_wrong_one_more():
    _, target, _ = random_case(1)
    classes = 4
    masks = F.interpolate(target.masks[None].float(), (12, 14))[0] * 40 - 20
    logits = torch.full((1, 3, classes + 1), -20.0)
    logits[0, range(3), target.labels] = 20.0
    weights = torch.ones(classes + 1)
    (good,) = set_losses([Guess(logits, masks[None])], [target], weights, 3, SETTINGS, torch.rand)
    (bad,) = set_losses([Guess(-logits, -masks[None])], [target], weights, 3, SETTINGS, torch.rand)
    assert good.classification < 1e-3
    assert all(b > g for g, b in zip(good, bad, strict=True))


def test_unmatched_queries_are_pulled_to_void_with_its_small_weight():
    guess, _, _ = random_case(0)
    empty = Targets(torch.zeros(0, dtype=torch.long), torch.zeros(0, 12, 14, dtype=torch.bool))
    weights = torch.tensor([1, 1, 1, 1, 0.1])
    (terms,) = set_losses([guess], [empty], weights, 1, SETTINGS, torch.rand)
    # All queries share one weight, which the normalisation takes out.
    assert_close(terms.classification, -2 * guess.class_logits[0].log_softmax(-1)[:, -1].mean())
    assert terms.mask == 0
    assert terms.dice == 0


def test_the_final_layer_draws_first():
    guess, target, _ = random_case(2)
    shapes = []

    def recorded(shape):
        shapes.append(shape)
        return torch.full(shape, 0.1 * len(shapes))

    first, final = set_losses([guess, guess], [target], torch.ones(5), 3, SETTINGS, recorded)
    assert shapes == [(1, 64, 2), (3, 192, 2), (3, 16, 2)] * 2
    (alone,) = set_losses([guess], [target], torch.ones(5), 3, SETTINGS, lambda shape: torch.full(shape, 0.1))
    assert alone.classification == final.classification
    assert first.mask != final.mask


def test_masks_are_normalised_by_the_given_count():
    guess, target, _ = random_case(3)
    constant = lambda shape: torch.full(shape, 0.4)  # noqa: E731
    (one,) = set_losses([guess], [target], torch.ones(5), 1, SETTINGS, constant)
    (four,) = set_losses([guess], [target], torch.ones(5), 4, SETTINGS, constant)
    assert_close(one.mask, 4 * four.mask)
    assert_close(one.dice, 4 * four.dice)
    assert one.classification == four.classification


def test_targets_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"Targets\.labels"):
        Targets(torch.zeros(2, dtype=torch.long), torch.zeros(3, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"Targets\.masks"):
        Targets(torch.zeros(2, dtype=torch.long), torch.zeros(4, 4, dtype=torch.bool))
