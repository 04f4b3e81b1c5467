"""Geometric ensemble of in-vocabulary and out-of-vocabulary scores (FC-CLIP, section 3.3, equation 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retclip.core.errors import require


@dataclass(frozen=True)
class EnsembleWeights:
    """How much the frozen CLIP counts.

    Attributes:
        alpha: exponent for classes seen in training, in [0, 1].
        beta: exponent for other classes, in [0, 1].
        only_valid_masks: ignore CLIP for a mask without a positive cell at stride 32 (the ResNet releases need this).
    """

    alpha: float = 0.4
    beta: float = 0.8
    only_valid_masks: bool = False

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            require(0 <= getattr(self, name) <= 1, f"EnsembleWeights.{name}", "in [0, 1]", getattr(self, name))


def geometric_ensemble(
    in_vocabulary: Tensor, out_of_vocabulary: Tensor, seen: Tensor, valid: Tensor, weights: EnsembleWeights
) -> Tensor:
    """Log-probabilities over C classes and void.

    The exponent is selected, never multiplied by a 0/1 mask, and logarithms come from log-softmax: a probability that
    underflows cannot turn into NaN.

    Args:
        in_vocabulary: (..., Q, C + 1) logits of the trained head, void last.
        out_of_vocabulary: (..., Q, C) logits of the frozen head.
        seen: (C,) bool, classes with a training name.
        valid: (..., Q) bool, masks with a positive cell at stride 32.
        weights: exponents.

    Returns:
        (..., Q, C + 1): log(p + 1e-8), void last.
    """
    exponent = torch.where(seen, weights.alpha, weights.beta).to(in_vocabulary.dtype)
    if weights.only_valid_masks:
        exponent = torch.where(valid[..., None], exponent, 0.0)
    void = in_vocabulary.softmax(-1)[..., -1:]
    # Where CLIP does not count its logits may be anything, even NaN of foreign kernels: 0 * NaN would spread.
    mixed = torch.where(exponent > 0, exponent * out_of_vocabulary.log_softmax(-1), 0.0)
    mixed = mixed + (1 - exponent) * in_vocabulary[..., :-1].log_softmax(-1)
    return (torch.cat([mixed.softmax(-1) * (1 - void), void], -1) + 1e-8).log()
