"""Set prediction losses: Hungarian matching, classification, mask and dice (Mask2Former, section 3; FC-CLIP, 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from retclip.core.errors import require
from retclip.training.points import PointSettings, Uniform, sample_points, uncertain_points


@dataclass(frozen=True)
class Targets:
    """Ground truth of one image: labels (n,) int64, columns of the vocabulary; masks (n, H, W) bool, padded size."""

    labels: Tensor
    masks: Tensor

    def __post_init__(self) -> None:
        require(self.masks.ndim == 3, "Targets.masks", "(n, H, W)", tuple(self.masks.shape))
        require(
            self.labels.shape == self.masks.shape[:1],
            "Targets.labels",
            f"({len(self.masks)},)",
            tuple(self.labels.shape),
        )

    def to(self, device: torch.device) -> Targets:
        """The same targets on another device."""
        return Targets(self.labels.to(device), self.masks.to(device))


@dataclass(frozen=True)
class LossSettings:
    """Weights of the three terms, in the loss and in the matching cost; numbers of points."""

    classification: float = 2.0
    mask: float = 5.0
    dice: float = 5.0
    points: PointSettings = field(default_factory=PointSettings)


class Guess(NamedTuple):
    """One layer's prediction: class_logits (B, Q, C + 1), void last; mask_logits (B, Q, h, w)."""

    class_logits: Tensor
    mask_logits: Tensor


class LossTerms(NamedTuple):
    """Weighted scalar losses of one layer."""

    classification: Tensor
    mask: Tensor
    dice: Tensor


class Assignment(NamedTuple):
    """queries (n,) ascending and the targets (n,) assigned to them, int64."""

    queries: Tensor
    targets: Tensor


def set_losses(
    guesses: Sequence[Guess],
    targets: Sequence[Targets],
    class_weights: Tensor,
    masks_per_worker: float,
    settings: LossSettings,
    uniform: Uniform,
) -> list[LossTerms]:
    """Losses of every layer, each matched on its own.

    Args:
        guesses: in order of the layers, the final one last.
        targets: per image.
        class_weights: (C + 1,), void last.
        masks_per_worker: ground-truth masks of the whole batch divided by the number of workers, at least 1.
        settings: weights and points.
        uniform: random numbers; the final layer draws first, then the others in order.

    Returns:
        One `LossTerms` per guess, in the order of the guesses.
    """

    def terms(guess: Guess) -> LossTerms:
        guess = Guess(guess.class_logits.float(), guess.mask_logits.float())
        assignments = match(guess, targets, settings, uniform)
        mask, dice = _mask_losses(guess, targets, assignments, settings.points, uniform)
        return LossTerms(
            settings.classification * _classification_loss(guess, targets, assignments, class_weights),
            settings.mask * mask / masks_per_worker,
            settings.dice * dice / masks_per_worker,
        )

    final = terms(guesses[-1])
    return [*(terms(guess) for guess in guesses[:-1]), final]


@torch.no_grad()
def match(guess: Guess, targets: Sequence[Targets], settings: LossSettings, uniform: Uniform) -> list[Assignment]:
    """Cheapest assignment of queries to ground truth, per image; one set of uniform points serves all its masks."""
    assignments = []
    for class_logits, mask_logits, target in zip(guess.class_logits, guess.mask_logits, targets, strict=True):
        points = uniform((1, settings.points.matching, 2))
        predicted = sample_points(mask_logits, points)
        truth = sample_points(target.masks.to(predicted.dtype), points)
        cost = (
            settings.classification * -class_logits.softmax(-1)[:, target.labels]
            + settings.mask * _pairwise_cross_entropy(predicted, truth)
            + settings.dice * _pairwise_dice(predicted, truth)
        )
        # A diverged network must reach the check of the loss, not fail here on a cost that is not a number.
        rows, columns = linear_sum_assignment(cost.nan_to_num().cpu().numpy())
        device = class_logits.device
        assignments.append(Assignment(torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)))
    return assignments


def _pairwise_cross_entropy(predicted: Tensor, truth: Tensor) -> Tensor:
    """(Q, P) logits and (n, P) truth -> (Q, n) mean binary cross-entropy, without a (Q, n, P) array."""
    inside, outside = F.softplus(-predicted), F.softplus(predicted)
    return (inside @ truth.T + outside @ (1 - truth).T) / predicted.shape[1]


def _pairwise_dice(predicted: Tensor, truth: Tensor) -> Tensor:
    """(Q, P) logits and (n, P) truth -> (Q, n) dice distance with smoothing 1."""
    probability = predicted.sigmoid()
    return 1 - (2 * probability @ truth.T + 1) / (probability.sum(1)[:, None] + truth.sum(1)[None] + 1)


def _classification_loss(
    guess: Guess, targets: Sequence[Targets], assignments: Sequence[Assignment], class_weights: Tensor
) -> Tensor:
    """Cross-entropy over classes and void, normalised by the sum of the class weights; unmatched queries are void."""
    batch, queries, classes = guess.class_logits.shape
    labels = torch.full((batch, queries), classes - 1, device=guess.class_logits.device)
    for row, target, assignment in zip(labels, targets, assignments, strict=True):
        row[assignment.queries] = target.labels[assignment.targets]
    return F.cross_entropy(guess.class_logits.flatten(0, 1), labels.flatten(), class_weights)


def _mask_losses(
    guess: Guess, targets: Sequence[Targets], assignments: Sequence[Assignment], points: PointSettings, uniform: Uniform
) -> tuple[Tensor, Tensor]:
    """Sums over all matched masks of the mean binary cross-entropy and of the dice distance, at sampled points."""
    matched = [masks[found.queries] for masks, found in zip(guess.mask_logits, assignments, strict=True)]
    predicted = torch.cat(matched)
    if len(predicted) == 0:
        # Zero that still depends on the masks: every worker must take part in the gradient exchange.
        nothing = guess.mask_logits.sum() * 0
        return nothing, nothing
    truth = torch.cat([target.masks[found.targets] for target, found in zip(targets, assignments, strict=True)])
    places = uncertain_points(predicted, points, uniform)
    logits = sample_points(predicted, places)
    values = sample_points(truth.to(predicted.dtype), places)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, values, reduction="none").mean(1).sum()
    probability = logits.sigmoid()
    dice = 1 - (2 * (probability * values).sum(1) + 1) / (probability.sum(1) + values.sum(1) + 1)
    return cross_entropy, dice.sum()
