"""The settings themselves. Every default has a source: the paper, a measurement, or the library's own default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from retclip.core.errors import require
from retclip.presets.networks import DetectorSettings, EncoderSettings, MaskerSettings

KeyTransform = Literal["none", "centre", "standardise", "whiten"]


@dataclass(frozen=True)
class IndexSettings:
    """How a database is built.

    Attributes:
        batch: images per unit of work; a killed build repeats at most one unit.
        shard_rows: segments per shard, bounds the memory of the writer.
        min_area: smaller regions (pixels) are not stored.
        thumbnails: longest side of exemplar thumbnails in pixels, 0 = none.
        key_transform: linear map of the keys before comparison (spec: measured, centring is the cheapest gain).
        box_threshold: boxes that the detector likes less are not stored.
    """

    batch: int = 8
    shard_rows: int = 262_144
    min_area: int = 1
    thumbnails: int = 128
    key_transform: KeyTransform = "none"
    box_threshold: float = 0.35

    def __post_init__(self) -> None:
        require(0 < self.box_threshold < 1, "index.box_threshold", "in (0, 1)", self.box_threshold)
        require(self.batch > 0, "index.batch", "> 0", self.batch)
        require(self.shard_rows > 0, "index.shard_rows", "> 0", self.shard_rows)
        require(self.min_area > 0, "index.min_area", "> 0", self.min_area)
        require(self.thumbnails >= 0, "index.thumbnails", ">= 0", self.thumbnails)


@dataclass(frozen=True)
class ProposalSettings:
    """Where mask proposals come from.

    Attributes:
        kind: `regions` (graph-based hierarchy, no weights), `given` (masks from files), `fcclip` (the heads of the
            encoder's FC-CLIP, with their own scores), `gdino-sam` (the detector looks for every asked class, the masker
            turns its boxes into masks) or `sam-grid` (the masker prompted with a grid of points).
        training_classes: class list (as for --classes) of those heads; a class that shares a name with it is seen.
        scales: observation scales of the graph-based segmentation, larger = fewer, larger regions.
        min_share: regions below this share of the image are dropped.
        max_regions: at most so many proposals per image, largest (`gdino-sam`: most confident) first.
        box_threshold: confidence below which a box of `gdino-sam` is pruned.
        duplicate_iou: masks of `gdino-sam` and `sam-grid` that overlap more are one proposal.
        grid: points per side of `sam-grid`.
    """

    kind: Literal["regions", "given", "fcclip", "gdino-sam", "sam-grid"] = "regions"
    training_classes: str = "@coco133"
    scales: tuple[float, ...] = (100.0, 300.0, 900.0)
    min_share: float = 0.002
    max_regions: int = 150
    box_threshold: float = 0.25
    duplicate_iou: float = 0.85
    grid: int = 32

    def __post_init__(self) -> None:
        require(0 < self.box_threshold < 1, "proposals.box_threshold", "in (0, 1)", self.box_threshold)
        require(0 < self.duplicate_iou <= 1, "proposals.duplicate_iou", "in (0, 1]", self.duplicate_iou)
        require(self.grid > 0, "proposals.grid", "> 0", self.grid)
        require(bool(self.scales) and min(self.scales) > 0, "proposals.scales", "positive numbers", self.scales)
        require(0 <= self.min_share < 1, "proposals.min_share", "in [0, 1)", self.min_share)
        require(self.max_regions > 0, "proposals.max_regions", "> 0", self.max_regions)


@dataclass(frozen=True)
class RetrievalSettings:
    """How neighbours become scores.

    Attributes:
        k: neighbours per query.
        per_class_k: at most so many of them from one class, 0 = no limit.
        rule: `minmax` is the paper's (1 - min-max normalised distance); `voting` weighs a hit by
            exp(-distance / temperature).
        minmax: hits that share one normalisation: those of a query, of an image, or the best of every class.
        aggregate: several hits of one class under `minmax`.
        temperature: of `voting`, in units of cosine distance.
        transform: key transform of searches; `database` takes the one the database version names.
        label_match: cosine of class texts above which two names mean the same (paper: 0.95).
        prune_classes: stored classes that stay candidates in a picture, those retrieval likes best; 0 = all.
    """

    k: int = 32
    per_class_k: int = 0
    rule: Literal["minmax", "voting"] = "minmax"
    minmax: Literal["query", "image", "classes"] = "query"
    aggregate: Literal["max", "mean", "sum"] = "max"
    temperature: float = 0.05
    transform: Literal["database", "none", "centre", "standardise", "whiten"] = "database"
    label_match: float = 0.95
    prune_classes: int = 0

    def __post_init__(self) -> None:
        require(self.k > 0, "retrieval.k", "> 0", self.k)
        require(self.per_class_k >= 0, "retrieval.per_class_k", ">= 0", self.per_class_k)
        require(self.temperature > 0, "retrieval.temperature", "> 0", self.temperature)
        require(0 < self.label_match <= 1, "retrieval.label_match", "in (0, 1]", self.label_match)
        require(self.prune_classes >= 0, "retrieval.prune_classes", ">= 0", self.prune_classes)


@dataclass(frozen=True)
class FusionSettings:
    """How the three scores become one (paper: 0.4, 0.7, 0.3).

    Attributes:
        mode: `arithmetic` as printed in the paper, `geometric` as FC-CLIP combines in- and out-of-vocabulary.
        alpha, beta: weight of the out-of-vocabulary score for seen and unseen classes.
        gamma: weight of retrieval inside the out-of-vocabulary score.
        gamma_by_class: a class without exemplars keeps its whole CLIP score instead of (1 - gamma) of it.
        reliability: (intercept, slope) of the chance that the nearest neighbour is right, by its distance; gamma is
            multiplied by it. Empty = gamma as it is. `retclip tune` fits it on the database.
        only_valid_masks: ignore CLIP for masks that cover no cell of the feature map (FC-CLIP's ResNet releases).
        void: the head's own void probability, or `corrected` by the confidence of CLIP and retrieval.
    """

    mode: Literal["arithmetic", "geometric"] = "arithmetic"
    alpha: float = 0.4
    beta: float = 0.7
    gamma: float = 0.3
    gamma_by_class: bool = False
    reliability: tuple[float, ...] = ()
    only_valid_masks: bool = False
    void: Literal["head", "corrected"] = "head"

    def __post_init__(self) -> None:
        fits = len(self.reliability) in (0, 2) and all(map(math.isfinite, self.reliability))
        require(fits, "fusion.reliability", "no numbers, or intercept and slope", self.reliability)
        for name in ("alpha", "beta", "gamma"):
            value = getattr(self, name)
            require(math.isfinite(value) and 0 <= value <= 1, f"fusion.{name}", "in [0, 1]", value)


@dataclass(frozen=True)
class MergeSettings:
    """How labelled masks become one map.

    Attributes:
        rule: `argmax` (FC-CLIP) or `greedy` (panoptic FPN; for proposals that overlap by design), see query/merge.py.
        score_threshold: segments below it stay unlabelled.
        overlap_threshold: a mask that loses more than 1 - threshold of its pixels to better ones is dropped.
        join_things: touching regions of one thing class become one segment; for proposers that know no objects.
        max_instances: instances kept per image (COCO: 100).
    """

    rule: Literal["argmax", "greedy"] = "argmax"
    score_threshold: float = 0.0
    overlap_threshold: float = 0.8
    join_things: bool = False
    max_instances: int = 100

    def __post_init__(self) -> None:
        require(0 <= self.score_threshold <= 1, "merge.score_threshold", "in [0, 1]", self.score_threshold)
        require(0 <= self.overlap_threshold <= 1, "merge.overlap_threshold", "in [0, 1]", self.overlap_threshold)
        require(self.max_instances > 0, "merge.max_instances", "> 0", self.max_instances)


@dataclass(frozen=True)
class Preset:
    """All settings of a run under one name."""

    name: str
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    detector: DetectorSettings = field(default_factory=DetectorSettings)
    masker: MaskerSettings = field(default_factory=MaskerSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    merge: MergeSettings = field(default_factory=MergeSettings)

    def with_proposals(self, kind: str) -> Preset:
        """The same settings for proposals of another kind; only colour regions are parts that may have to be joined.

        Raises:
            ValueError: the preset lacks what these proposals need.
        """
        proposals = replace(self.proposals, kind=kind)  # type: ignore[arg-type]
        joined = self.merge.join_things and kind == "regions"
        return replace(self, proposals=proposals, merge=replace(self.merge, join_things=joined))

    def __post_init__(self) -> None:
        shared = self.proposals.kind != "fcclip" or self.encoder.library == "fcclip"
        require(
            shared,
            "proposals.kind",
            "fcclip only with encoder.library fcclip: one network is both",
            self.proposals.kind,
        )
        found = self.detector.library != "none" and self.masker.library != "none"
        require(
            self.proposals.kind != "gdino-sam" or found, "proposals.kind", "gdino-sam with detector and masker", "one"
        )
        require(
            self.proposals.kind != "sam-grid" or self.masker.library != "none",
            "proposals.kind",
            "sam-grid with a masker",
            "none",
        )
