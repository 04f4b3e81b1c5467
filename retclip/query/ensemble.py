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
        trust: (N or 1, C or 1) factors of gamma in [0, 1], None = 1 everywhere.
    """

    retrieval: Tensor | None = None
    clip: Tensor | None = None
    in_vocab: Tensor | None = None
    void: Tensor | None = None
    trust: Tensor | None = None

    def __post_init__(self) -> None:
        tables = [table for table in (self.retrieval, self.clip, self.in_vocab) if table is not None]
        require(bool(tables), "ExpertScores", "at least one expert", 0)
        shapes = {tuple(table.shape) for table in tables}
        require(len(shapes) == 1, "ExpertScores", "equal shapes (N, C)", shapes)

    def rows(self, rows: slice) -> ExpertScores:
        """The scores of some proposals."""
        retrieval, clip, in_vocab, void = (
            None if table is None else table[rows] for table in (self.retrieval, self.clip, self.in_vocab, self.void)
        )
        # A trust of one row holds for all proposals.
        trust = self.trust if self.trust is None or len(self.trust) == 1 else self.trust[rows]
        return ExpertScores(retrieval, clip, in_vocab, void, trust)


@dataclass(frozen=True)
class FusedScores:
    """The fused table.

    Attributes:
        scores: (N, C), rows sum to 1 - void, or to 0 without any evidence.
        shares: (N, C, 3), which part of a score came from retrieval, clip and the in-vocabulary head, in this order.
    """

    scores: Tensor
    shares: Tensor

    def rows(self, rows: slice) -> FusedScores:
        """The scores of some proposals."""
        return FusedScores(self.scores[rows], self.shares[rows])


def combine(experts: ExpertScores, seen: Tensor, settings: FusionSettings) -> FusedScores:
    """Fuse the experts (RetCLIP, equations of section 3.3), then renormalise over the asked classes.

    s_oov = gamma s_ret + (1 - gamma) s_clip;  s = e s_oov + (1 - e) s_iv, e = alpha for seen classes, else beta.
    gamma becomes 1 without a text tower and 0 for a row that retrieved nothing; without a trained head s = s_oov, and
    in a row without any s_oov the trained head decides alone.
    `geometric` combines s_iv and s_oov as s_iv^(1-e) s_oov^e, as FC-CLIP does for its two probabilities.

    Args:
        seen: (C,) bool, True for classes of the in-vocabulary head's training set.
    """
    gamma = torch.tensor(settings.gamma) if experts.trust is None else settings.gamma * experts.trust
    from_retrieval, from_clip = _out_of_vocabulary(experts, gamma)
    s_oov = from_retrieval + from_clip
    if experts.in_vocab is None:
        raw, parts = s_oov, (from_retrieval, from_clip, torch.zeros_like(s_oov))
    else:
        weight = torch.where(seen.to(s_oov.device), settings.alpha, settings.beta).to(s_oov)
        exponent = weight * (s_oov > 0).any(dim=1, keepdim=True)
        parts = (exponent * from_retrieval, exponent * from_clip, (1 - exponent) * experts.in_vocab)
        raw = (
            torch.stack(parts).sum(dim=0)
            if settings.mode == "arithmetic"
            else _geometric(experts.in_vocab, s_oov, exponent)
        )
    scores = _normalised(raw)
    if experts.void is not None:
        scores = scores * (1 - experts.void)[:, None]
    return FusedScores(scores, _normalised(torch.stack(parts, dim=-1)))


def _normalised(values: Tensor) -> Tensor:
    """Divided by the sum along the last axis; rows of zeros stay zeros."""
    total = values.sum(dim=-1, keepdim=True)
    return values / torch.where(total > 0, total, 1.0)


def _out_of_vocabulary(experts: ExpertScores, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """(gamma s_ret, (1 - gamma) s_clip) with the effective gamma of every row and class."""
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
    weight = torch.where((retrieval > 0).any(dim=1, keepdim=True), gamma.to(retrieval), 0.0)
    return weight * retrieval, (1 - weight) * clip


def _geometric(in_vocab: Tensor, s_oov: Tensor, exponent: Tensor) -> Tensor:
    # The floor stands before the logarithm: log(0) * 0 would be NaN.
    log = (1 - exponent) * in_vocab.clamp_min(_FLOOR).log() + exponent * s_oov.clamp_min(_FLOOR).log()
    return (log - log.amax(dim=1, keepdim=True)).exp()
