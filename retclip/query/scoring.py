"""From what the networks and the database said of one picture's proposals to one fused table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from retclip.core.errors import require
from retclip.presets import FusionSettings, Preset
from retclip.query.ensemble import ExpertScores, FusedScores, combine
from retclip.query.retrieval import retrieval_scores

_GROUP_SCORES = 1 << 20  # scores (proposals x classes) that are computed together: some megabytes


@dataclass(frozen=True)
class Observation:
    """What the networks say of N proposals; with the database, enough to label them again without a network.

    Attributes:
        keys: (N, D) float32 unit vectors that the database is asked about; zero rows are not looked up.
        clip, in_vocab: (N, C) probabilities over the asked classes, None without such an expert.
        void: (N,) probability that a proposal is nothing, None without a trained head.
        valid: (N,) bool, proposals that cover a cell of the feature map; None = all.
    """

    keys: Tensor
    clip: Tensor | None = None
    in_vocab: Tensor | None = None
    void: Tensor | None = None
    valid: Tensor | None = None

    def select(self, rows: Tensor | slice) -> Observation:
        """The proposals at `rows`: (n,) int64, (N,) bool or a slice."""
        tables = (self.clip, self.in_vocab, self.void, self.valid)
        return Observation(self.keys[rows], *(None if table is None else table[rows] for table in tables))

    @classmethod
    def join(cls, parts: Sequence[Observation]) -> Observation:
        """Proposals of several pictures below one another; tables that one part lacks, all must lack."""
        tables = [[getattr(part, name) for part in parts] for name in ("clip", "in_vocab", "void", "valid")]
        joined = (None if column[0] is None else torch.cat(column) for column in tables)
        return cls(torch.cat([part.keys for part in parts]), *joined)

    @property
    def tables(self) -> tuple[bool, ...]:
        """Which of the optional tables there are."""
        return tuple(table is not None for table in (self.clip, self.in_vocab, self.void, self.valid))


@dataclass(frozen=True)
class Hits:
    """Neighbours in terms of the asked classes: distance (N, K), inf where missing; column (N, K) int64, -1 there."""

    distance: Tensor
    column: Tensor

    def __post_init__(self) -> None:
        same = self.distance.shape == self.column.shape
        require(same, "Hits.column", str(tuple(self.distance.shape)), tuple(self.column.shape))

    def nearest(self, k: int) -> Hits:
        """The first k places."""
        return Hits(self.distance[:, :k], self.column[:, :k])

    def rows(self, rows: slice) -> Hits:
        """The hits of some proposals."""
        return Hits(self.distance[rows], self.column[rows])


@dataclass(frozen=True)
class AskedClasses:
    """What is known of the asked classes, (C,) bool each: the database has exemplars; the head was trained on them."""

    stored: Tensor
    seen: Tensor


def weigh(
    observation: Observation, hits: Hits, classes: AskedClasses, preset: Preset
) -> tuple[ExpertScores, FusedScores]:
    """Score, prune, correct and fuse as the preset says; proposals of ONE picture, unless no setting looks across them.

    `retrieval.minmax = "image"` and `retrieval.prune_classes` look across the proposals of a picture.
    """
    retrieval = retrieval_scores(hits.distance, hits.column, len(classes.stored), preset.retrieval)
    return weigh_retrieved(observation, hits, retrieval, classes, preset)


def weigh_pictures(
    observations: Sequence[Observation], hits: Hits, classes: AskedClasses, preset: Preset
) -> Iterator[tuple[ExpertScores, FusedScores]]:
    """`weigh` for every one of several pictures, whose hits stand below one another.

    Where no setting looks across a picture, rows are independent, and many small steps become a few large ones.
    """
    alone = preset.retrieval.minmax == "image" or bool(preset.retrieval.prune_classes)
    start = 0
    for group in _groups(observations, 1 if alone else _GROUP_SCORES // max(len(classes.stored), 1)):
        sizes = [len(observation.keys) for observation in group]
        part = hits.rows(slice(start, start + sum(sizes)))
        start += sum(sizes)
        experts, fused = weigh(Observation.join(group), part, classes, preset)
        ends = list(accumulate(sizes))
        for size, end in zip(sizes, ends, strict=True):
            rows = slice(end - size, end)
            yield experts.rows(rows), fused.rows(rows)


def _groups(observations: Sequence[Observation], proposals: int) -> Iterator[list[Observation]]:
    """Consecutive pictures with the same tables and at most so many proposals, or a single one."""
    group: list[Observation] = []
    for observation in observations:
        total = sum(len(other.keys) for other in group) + len(observation.keys)
        if group and (total > proposals or group[0].tables != observation.tables):
            yield group
            group = []
        group.append(observation)
    if group:
        yield group


def weigh_retrieved(
    observation: Observation, hits: Hits, retrieval: Tensor, classes: AskedClasses, preset: Preset
) -> tuple[ExpertScores, FusedScores]:
    """The same from retrieval scores (N, C) that were computed before, for settings that share them."""
    clip, in_vocab = observation.clip, observation.in_vocab
    if preset.fusion.only_valid_masks and clip is not None and observation.valid is not None:
        # Such a row has no retrieval either, and without both the trained head decides alone: alpha = beta = 0.
        clip = clip * observation.valid[:, None]
    if preset.retrieval.prune_classes:
        kept = kept_classes(retrieval, classes.stored, preset.retrieval.prune_classes)
        retrieval = retrieval * kept
        clip, in_vocab = (_restricted(table, kept) for table in (clip, in_vocab))
    void = observation.void
    if void is not None and preset.fusion.void == "corrected":
        void = corrected_void(void, retrieval, clip)
    trust = retrieval_trust(hits, classes.stored, preset.fusion)
    experts = ExpertScores(retrieval, clip, in_vocab, void, trust)
    return experts, combine(experts, classes.seen, preset.fusion)


def kept_classes(retrieval: Tensor, stored: Tensor, most: int) -> Tensor:
    """(C,) bool: the `most` stored classes with the largest retrieval score summed over a picture's proposals.

    Classes without exemplars stay: retrieval cannot speak against them.
    """
    totals = retrieval.sum(dim=0)
    ranked = totals.topk(min(most, len(totals))).indices
    best = torch.zeros_like(stored).to(totals.device).index_fill(0, ranked, True)
    return (best & (totals > 0)) | ~stored.to(totals.device)


def _restricted(table: Tensor | None, kept: Tensor) -> Tensor | None:
    """Probabilities over the kept classes only, rows sum to 1 again."""
    if table is None:
        return None
    left = table * kept
    return left / left.sum(dim=1, keepdim=True).clamp_min(torch.finfo(left.dtype).tiny)


def corrected_void(void: Tensor, retrieval: Tensor, clip: Tensor | None) -> Tensor:
    """(N,) void lowered by the confidence of the best class of CLIP or retrieval, whichever is surer.

    The head calls what it was not trained on nothing; a segment that the others recognise is something.
    """
    tables = [retrieval] if clip is None else [retrieval, clip]
    sure = torch.stack([table.amax(dim=1) for table in tables]).amax(dim=0).clamp(0, 1)
    return void * (1 - sure)


def retrieval_trust(hits: Hits, stored: Tensor, fusion: FusionSettings) -> Tensor | None:
    """Factors of gamma, (N or 1, C or 1) in [0, 1]; None where the paper's constant gamma is asked.

    `fusion.reliability` (intercept, slope) gives each query sigmoid(intercept + slope * nearest distance), the chance
    that its nearest neighbour is right; `fusion.gamma_by_class` gives classes without exemplars their whole CLIP score.
    """
    if not fusion.reliability and not fusion.gamma_by_class:
        return None
    trust = torch.ones(1, 1, device=hits.distance.device)
    if fusion.reliability:
        intercept, slope = fusion.reliability
        nearest = hits.distance[:, :1].float()
        # No hit at all: distance inf, and a falling sigmoid is 0 there; written out because 0 * inf is NaN.
        trust = torch.where(nearest.isinf(), 0.0, torch.sigmoid(intercept + slope * nearest.nan_to_num(posinf=0.0)))
    if fusion.gamma_by_class:
        trust = trust * stored.to(trust)[None]
    return trust


def leave_out(hits: Hits, banned: Tensor) -> Hits:
    """The hits less the places marked in `banned` (N, K) bool, the rest moved forward in their order."""
    distance = torch.where(banned, torch.inf, hits.distance)
    column = torch.where(banned, -1, hits.column)
    order = distance.argsort(dim=1, stable=True)
    return replace(hits, distance=distance.gather(1, order), column=column.gather(1, order))
