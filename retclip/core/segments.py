"""A stored segment: one labelled region of one image, and its neighbours at query time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require


def segment_identity(source: str, image_sha256: str, mask_counts: bytes, size: tuple[int, int]) -> int:
    """64-bit id of a segment: hash of its source, the image's bytes and its mask.

    The image is named by the digest of its bytes, not by a path: a folder that moves adds nothing twice, and two
    folders with equal file names do not shadow each other.

    Args:
        mask_counts: compressed COCO run-length counts of the full-resolution mask.
        size: (height, width) of that mask.
    """
    text = f"{source}\0{image_sha256}\0{size[0]}x{size[1]}\0".encode() + mask_counts
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """Everything a database keeps about one segment beside its vector (docs/database-format.md, meta.parquet).

    Attributes:
        segment_id: unsigned 64-bit, see `segment_identity`.
        label: class name as mapped; `label_raw`: as found in the source.
        label_source: human | machine | caption | folder | table.
        label_confidence: in [0, 1].
        source, split, image_id, image_uri, image_sha256: where the image came from.
        image_width, image_height: pixels, after EXIF rotation.
        box: x0, y0, x1, y1 in pixels of the image, half-open.
        area: mask pixels.
        mask_counts: compressed COCO run-length counts of the (image_height, image_width) mask.
        box_source, mask_source: annotation or model that gave the box and the mask.
        detector_score, mask_iou: confidences of those models, NaN where annotated.
        prompt_chunk: hash of the detector prompt, empty where annotated.
        is_crowd: the region covers a group of instances.
        is_thing: the source says thing (True) or stuff.
        license, attribution: of the image.
    """

    segment_id: int
    label: str
    label_raw: str
    label_source: str
    label_confidence: float
    source: str
    split: str
    image_id: str
    image_uri: str
    image_sha256: str
    image_width: int
    image_height: int
    box: tuple[float, float, float, float]
    area: int
    mask_counts: bytes
    box_source: str
    mask_source: str
    detector_score: float
    mask_iou: float
    prompt_chunk: str
    is_crowd: bool
    is_thing: bool
    license: str
    attribution: str

    def __post_init__(self) -> None:
        require(0 <= self.segment_id < 1 << 64, "StoredSegment.segment_id", "unsigned 64-bit", self.segment_id)
        require(bool(self.label.strip()), "StoredSegment.label", "a non-empty name", repr(self.label))
        require(self.area > 0, "StoredSegment.area", "> 0 pixels", self.area)


@dataclass(frozen=True)
class Neighbors:
    """Nearest stored segments of M queries, at most K each, nearest first; missing places hold -1 and +inf.

    Attributes:
        distance: (M, K) float32 cosine distance in [0, 2], ascending along K, ties in order of segment id.
        class_id: (M, K) int32 database class.
        shard, row: (M, K) int32 and int64 position inside the database version that was searched.
        segment_id: (M, K) uint64, 0 where missing.
    """

    distance: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int32]
    shard: npt.NDArray[np.int32]
    row: npt.NDArray[np.int64]
    segment_id: npt.NDArray[np.uint64]

    def __post_init__(self) -> None:
        require(self.distance.ndim == 2, "Neighbors.distance", "(M, K)", self.distance.shape)
        for name in ("class_id", "shard", "row", "segment_id"):
            require(
                getattr(self, name).shape == self.distance.shape,
                f"Neighbors.{name}",
                str(self.distance.shape),
                getattr(self, name).shape,
            )

    def rows(self, chosen: slice) -> Neighbors:
        """The neighbours of some of the queries."""
        return Neighbors(*(getattr(self, field.name)[chosen] for field in fields(self)))
