"""Set prediction losses of a detector that is asked in words (DETR, section 3.1; Grounding DINO, section 3.4).

Three things differ from the published recipe, all of them because small networks are trained for minutes: every
proposal of the encoder is taught, with several proposals per thing (Hybrid DETR, section 3); and a match is taught the
overlap it reached in place of 1 (VarifocalNet, section 3.2), so that scores rank boxes by how well they fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from retclip.core.errors import require
from retclip.training.losses import Assignment

# Stands for the -inf that networks give to positions without a token: it scores 0 and teaches nothing.
_NO_TOKEN = -50.0
_FOCUS, _BACKGROUND = 2.0, 0.75


@dataclass(frozen=True)
class DetectionLossSettings:
    """Weights of the three terms, in the loss and in the matching cost.

    Attributes:
        classification, distance, overlap: weights.
        proposals: how many proposals of the encoder are matched to each thing; a query of the decoder always is one.
    """

    classification: float = 2.0
    distance: float = 5.0
    overlap: float = 2.0
    proposals: int = 5


class BoxGuess(NamedTuple):
    """What Q queries or proposals say: logits (B, Q, T) per token; boxes (B, Q, 4) as in `BoxTargets`."""

    logits: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class BoxTargets:
    """Ground truth of one picture.

    Attributes:
        boxes: (n, 4) centre x, centre y, width, height as shares of the picture.
        tokens: (n, T) bool, the tokens of the prompt that name the thing.
    """

    boxes: Tensor
    tokens: Tensor

    def __post_init__(self) -> None:
        require(self.boxes.shape[1:] == (4,), "BoxTargets.boxes", "(n, 4)", tuple(self.boxes.shape))
        fits = self.tokens.ndim == 2 and len(self.tokens) == len(self.boxes)
        require(fits, "BoxTargets.tokens", f"({len(self.boxes)}, T)", tuple(self.tokens.shape))
        require(bool(self.tokens.any(1).all()), "BoxTargets.tokens", "a token per thing", self.tokens.sum(1).tolist())

    def cut(self, length: int) -> BoxTargets:
        """The same for prompts of at most `length` tokens."""
        return BoxTargets(self.boxes, self.tokens[:, :length])


class DetectionLosses(NamedTuple):
    """Weighted scalars of one layer: of tokens, of the L1 distance and of the generalised IoU of boxes."""

    classification: Tensor
    distance: Tensor
    overlap: Tensor


def detection_losses(
    guess: BoxGuess, targets: Sequence[BoxTargets], copies: int, settings: DetectionLossSettings
) -> DetectionLosses:
    """Losses of one layer, per matched box.

    Args:
        guess: of the layer; logits may be -inf where a prompt has no token.
        targets: per picture, with the T of the logits.
        copies: how many queries are matched to each thing.
        settings: weights.
    """
    guess = BoxGuess(guess.logits.clamp(min=_NO_TOKEN), guess.boxes)
    assignments = [
        match_boxes(BoxGuess(logits, boxes), target, copies, settings)
        for logits, boxes, target in zip(*guess, targets, strict=True)
    ]
    rows = torch.repeat_interleave(torch.tensor([len(found.queries) for found in assignments]))
    queries = torch.cat([found.queries for found in assignments])
    found = guess.boxes[rows, queries]
    truth = torch.cat([target.boxes[matched.targets] for target, matched in zip(targets, assignments, strict=True)])
    names = torch.cat([target.tokens[matched.targets] for target, matched in zip(targets, assignments, strict=True)])
    count = max(1, len(found))
    corners, true_corners = _corners(found), _corners(truth)
    reached = box_iou(corners.detach(), true_corners).diagonal()
    wanted = torch.zeros_like(guess.logits)
    wanted[rows, queries] = names * reached[:, None]
    return DetectionLosses(
        settings.classification * _token_loss(guess.logits, wanted) / count,
        settings.distance * F.l1_loss(found, truth, reduction="sum") / count,
        settings.overlap * (1 - generalized_box_iou(corners, true_corners).diagonal()).sum() / count,
    )


@torch.no_grad()
def match_boxes(guess: BoxGuess, target: BoxTargets, copies: int, settings: DetectionLossSettings) -> Assignment:
    """Cheapest assignment of queries to things in one picture, each thing `copies` times if there are queries enough.

    Args:
        guess: logits (Q, T) and boxes (Q, 4).
        target: ground truth.
        copies: queries per thing.
        settings: weights.
    """
    cost = (
        settings.classification * _naming_cost(guess.logits, target.tokens)
        + settings.distance * torch.cdist(guess.boxes, target.boxes, p=1)
        - settings.overlap * generalized_box_iou(_corners(guess.boxes), _corners(target.boxes))
    )
    # A diverged network must reach the check of the gradient, not fail here on a cost that is not a number.
    queries, columns = linear_sum_assignment(cost.nan_to_num().repeat(1, copies).cpu().numpy())
    things = torch.as_tensor(columns) % max(1, len(target.boxes))
    return Assignment(torch.as_tensor(queries).to(guess.boxes.device), things.to(guess.boxes.device))


def _naming_cost(logits: Tensor, tokens: Tensor) -> Tensor:
    """(Q, T) logits and (n, T) tokens -> (Q, n): focal loss of naming minus that of not naming, mean over a name."""
    probability = logits.sigmoid()
    named = 0.25 * (1 - probability) ** 2 * F.softplus(-logits)
    other = 0.75 * probability**2 * F.softplus(logits)
    share = tokens / tokens.sum(1, keepdim=True)
    return (named - other) @ share.T


def _token_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the binary cross-entropy with the wanted probabilities; where 0 is wanted, hard ones count most."""
    easy = _BACKGROUND * logits.detach().sigmoid() ** _FOCUS
    weights = torch.where(wanted > 0, torch.ones_like(easy), easy)
    return F.binary_cross_entropy_with_logits(logits, wanted, weights, reduction="sum")


def _corners(boxes: Tensor) -> Tensor:
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners
