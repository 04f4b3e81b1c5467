"""What a segmentation returns: the map, and for every segment the reasons for its label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import Vocabulary

Expert = Literal["retrieval", "clip", "in-vocab"]


@dataclass(frozen=True)
class Neighbor:
    """A stored segment that voted.

    Attributes:
        distance: cosine distance in [0, 2] under the database's key transform.
        label: its class.
        stored: everything that is kept about it.
        database: `name@version` of the database that holds it.
    """

    distance: float
    label: str
    stored: StoredSegment
    database: str = ""


@dataclass(frozen=True)
class LabelMatch:
    """How a requested class was found in the database.

    Attributes:
        requested: first name of the asked category.
        stored: labels of the database that answer for it, empty if none does.
        method: `name`, `synonym`, `text` (cosine of class texts) or `none`.
        similarity: 1.0 for names and synonyms, the cosine for `text`, 0.0 for `none`.
    """

    requested: str
    stored: tuple[str, ...]
    method: Literal["name", "synonym", "text", "none"]
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Why one segment carries its label.

    Attributes:
        segment: the segment of the map it belongs to.
        label: first name of its category.
        proposal: row of the mask proposal (the first, where stuff regions were merged).
        scores: what each expert said of this class, None for an expert that did not vote.
        decided_by: the expert with the largest share in the final score.
        shares: parts of the final score by expert, they sum to 1; absent experts hold 0.
        runner_up: next best classes with their final scores, best first.
        match: how the class was found in the database.
        neighbors: nearest stored segments of the asked vocabulary, nearest first.
        flags: `low_margin`, `no_exemplars`, ... in alphabetical order.
    """

    segment: Segment
    label: str
    proposal: int
    scores: Mapping[Expert, float | None]
    decided_by: Expert
    shares: Mapping[Expert, float]
    runner_up: tuple[tuple[str, float], ...]
    match: LabelMatch
    neighbors: tuple[Neighbor, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Instances:
    """Countable objects, best first: masks (N, H, W) bool, category_id (N,) int, score (N,) float in [0, 1]."""

    masks: npt.NDArray[np.bool_]
    category_id: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        require(self.masks.ndim == 3, "Instances.masks", "(N, H, W)", self.masks.shape)
        require(
            len(self.masks) == len(self.category_id) == len(self.score),
            "Instances",
            "equal lengths",
            (len(self.masks), len(self.category_id), len(self.score)),
        )


@dataclass(frozen=True)
class SegmentationResult:
    """Everything known about one segmented image.

    Attributes:
        image: name of the file as the user gave it; image_sha256: digest of its bytes.
        panoptic: the map, with its segments.
        explanations: one per segment, in the order of `panoptic.segments`.
        semantic: (H, W) int32, column of the vocabulary per pixel, -1 where no proposal lies; None = not asked for.
        instances: overlapping things, best first; None = not asked for.
        vocabulary: the classes that were asked.
        run: settings and identities (database, version, feature space, preset, fusion), plain JSON types.
        seconds: wall-clock time spent on this image.
    """

    image: str
    image_sha256: str
    panoptic: PanopticMap
    explanations: tuple[Explanation, ...]
    semantic: npt.NDArray[np.int32] | None
    instances: Instances | None
    vocabulary: Vocabulary
    run: Mapping[str, Any]
    seconds: float

    def __post_init__(self) -> None:
        require(
            [e.segment.id for e in self.explanations] == [s.id for s in self.panoptic.segments],
            "SegmentationResult.explanations",
            "one per segment, in order",
            len(self.explanations),
        )
        require(
            self.semantic is None or self.semantic.shape == self.panoptic.ids.shape,
            "SegmentationResult.semantic",
            str(self.panoptic.ids.shape),
            self.semantic is not None and self.semantic.shape,
        )
