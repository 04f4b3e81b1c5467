"""Three experts, one table: retrieval and text similarity outside the training vocabulary, a trained head inside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retclip.core.errors import require
from retclip.presets import FusionSettings

_FLOOR = 1e-12


@dataclass(frozen=True)
class ExpertScores:
    """What each expert said, (N, C) each; None = this expert does not exist here.

    Attributes:
        retrieval: scores in [0, 1], not a distribution.
        clip, in_vocab: probabilities over the asked classes (no void).
        void: (N,) probability that the mask is nothing, from the in-vocabulary head.
    """

    retrieval: Tensor | None = None
    clip: Tensor | None = None
    in_vocab: Tensor | None = None
    void: Tensor | None = None

    def __post_init__(self) -> None:
        tables = [table for table in (self.retrieval, self.clip, self.in_vocab) if table is not None]
        require(bool(tables), "ExpertScores", "at least one expert", 0)
        shapes = {tuple(table.shape) for table in tables}
        require(len(shapes) == 1, "ExpertScores", "equal shapes (N, C)", shapes)


@dataclass(frozen=True)
class FusedScores:
    """The fused table.

    Attributes:
        scores: (N, C), rows sum to 1 - void, or to 0 without any evidence.
        shares: (N, C, 3), which part of a score came from retrieval, clip and the in-vocabulary head, in this order.
    """

    scores: Tensor
    shares: Tensor


def combine(experts: ExpertScores, seen: Tensor, settings: FusionSettings) -> FusedScores:
    """Fuse the experts (RetCLIP, equations of section 3.3), then renormalise over the asked classes.

    s_oov = gamma s_ret + (1 - gamma) s_clip;  s = e s_oov + (1 - e) s_iv, e = alpha for seen classes, else beta.
    gamma becomes 1 without a text tower and 0 for a row that retrieved nothing; without a trained head s = s_oov.
    `geometric` combines s_iv and s_oov as s_iv^(1-e) s_oov^e, as FC-CLIP does for its two probabilities.

    Args:
        seen: (C,) bool, True for classes of the in-vocabulary head's training set.
    """
    from_retrieval, from_clip = _out_of_vocabulary(experts, settings.gamma)
    s_oov = from_retrieval + from_clip
    if experts.in_vocab is None:
        raw, parts = s_oov, (from_retrieval, from_clip, torch.zeros_like(s_oov))
    else:
        exponent = torch.where(seen.to(s_oov.device), settings.alpha, settings.beta).to(s_oov)
        parts = (exponent * from_retrieval, exponent * from_clip, (1 - exponent) * experts.in_vocab)
        raw = (
            torch.stack(parts).sum(dim=0)
            if settings.mode == "arithmetic"
            else _geometric(experts.in_vocab, s_oov, exponent)
        )
    shares = torch.stack(parts, dim=-1)
    shares = shares / shares.sum(dim=-1, keepdim=True).clamp_min(_FLOOR)
    scores = raw / raw.sum(dim=1, keepdim=True).clamp_min(_FLOOR)
    if experts.void is not None:
        scores = scores * (1 - experts.void)[:, None]
    return FusedScores(scores, shares)


def _out_of_vocabulary(experts: ExpertScores, gamma: float) -> tuple[Tensor, Tensor]:
    """(gamma s_ret, (1 - gamma) s_clip) with the effective gamma of every row."""
    retrieval, clip = experts.retrieval, experts.clip
    if retrieval is None and clip is None:
        in_vocab = experts.in_vocab
        assert in_vocab is not None  # ExpertScores holds at least one table
        return torch.zeros_like(in_vocab), torch.zeros_like(in_vocab)
    if retrieval is None:
        assert clip is not None
        return torch.zeros_like(clip), clip
    if clip is None:
        return retrieval, torch.zeros_like(retrieval)
    weight = torch.where((retrieval > 0).any(dim=1, keepdim=True), gamma, 0.0)
    return weight * retrieval, (1 - weight) * clip


def _geometric(in_vocab: Tensor, s_oov: Tensor, exponent: Tensor) -> Tensor:
    # The floor stands before the logarithm: log(0) * 0 would be NaN.
    log = (1 - exponent) * in_vocab.clamp_min(_FLOOR).log() + exponent * s_oov.clamp_min(_FLOOR).log()
    return (log - log.amax(dim=1, keepdim=True)).exp()
