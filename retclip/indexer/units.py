"""One unit of work: pictures in, stored segments and vectors out. No state, so any executor can run it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.core.images import Picture
from retclip.core.rle import decode_mask, encode_mask
from retclip.core.segments import StoredSegment, segment_identity
from retclip.indexer.plan import BuildRequest, WorkUnit
from retclip.ports.corpora import CorpusClass, CorpusImage, Region
from retclip.ports.encoders import DenseEncoder, DenseFeatures, embed_regions

# Full-size masks decoded together: 64 of a 12-megapixel photo are 0.8 GB.
_MASKS_AT_ONCE = 64


@dataclass(frozen=True)
class Failure:
    """A picture that could not be used, and why."""

    image_id: str
    path: str
    code: str
    message: str


@dataclass(frozen=True)
class UnitResult:
    """What one unit gave.

    Attributes:
        segments, vectors: new segments and their (N, D) float32 vectors, row by row.
        thumbnails: JPEG bytes by segment id.
        failures: pictures that could not be used.
        known: segments that were there before: in the database, or in the same picture.
        stored: ids of those in the database, without which the unit is not whole.
        elsewhere: how many of those came with a label (first) other than the stored one (second).
    """

    segments: tuple[StoredSegment, ...]
    vectors: npt.NDArray[np.float32]
    thumbnails: Mapping[int, bytes]
    failures: tuple[Failure, ...]
    known: int
    stored: frozenset[int]
    elsewhere: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class LoadedUnit:
    """A unit with its pictures decoded.

    Attributes:
        pictures: those that can be used, with what the corpus says of them.
        failures: the others.
    """

    pictures: tuple[tuple[CorpusImage, Picture], ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class _Fresh:
    """Segments of one picture that the database does not hold."""

    image: CorpusImage
    picture: Picture
    segments: tuple[StoredSegment, ...]


class _Outcome:
    """Collects what a unit gives."""

    def __init__(self, failures: Iterable[Failure], dim: int) -> None:
        self.failures = list(failures)
        self.segments: list[StoredSegment] = []
        self.vectors = [np.zeros((0, dim), np.float32)]
        self.thumbnails: dict[int, bytes] = {}
        self.known = 0
        self.stored: set[int] = set()
        self.elsewhere: Counter[tuple[str, str]] = Counter()

    def result(self) -> UnitResult:
        vectors = np.concatenate(self.vectors)
        return UnitResult(
            tuple(self.segments),
            vectors,
            self.thumbnails,
            tuple(self.failures),
            self.known,
            frozenset(self.stored),
            self.elsewhere,
        )


def load_unit(unit: WorkUnit) -> LoadedUnit:
    """Decode the pictures of a unit; one that cannot be used is named and the others go on."""
    pictures, failures = [], []
    for image in unit.images:
        try:
            _check_names(image)
            pictures.append((image, image.read()))
        except InputError as error:
            failures.append(_failure(image, error))
    return LoadedUnit(tuple(pictures), tuple(failures))


def run_unit(
    unit: LoadedUnit,
    request: BuildRequest,
    encoder: DenseEncoder,
    live_labels: Callable[[Collection[int]], Mapping[int, str]],
) -> UnitResult:
    """Find regions, encode and pool the pictures of one unit; a picture that fails is named and the others go on.

    Args:
        live_labels: those of some segment ids that the database holds, with their classes; they are not encoded again.
    """
    outcome = _Outcome(unit.failures, encoder.space.dim)
    fresh = list(_fresh_segments(unit, request, live_labels, outcome))
    features = encoder.encode_images([item.picture.pixels for item in fresh]) if fresh else []
    for item, dense in zip(fresh, features, strict=True):
        unusable = 0
        for start in range(0, len(item.segments), _MASKS_AT_ONCE):
            chunk = item.segments[start : start + _MASKS_AT_ONCE]
            unusable += _pool(chunk, item.picture, dense, encoder, request.thumbnails, outcome)
        if unusable:
            message = f"{unusable} regions have no features (all zero or not finite)."
            outcome.failures.append(Failure(item.image.image_id, str(item.image.path), "E116", message))
    return outcome.result()


def _fresh_segments(
    unit: LoadedUnit,
    request: BuildRequest,
    live_labels: Callable[[Collection[int]], Mapping[int, str]],
    outcome: _Outcome,
) -> Iterator[_Fresh]:
    """Pictures with the segments that are to be encoded. Masks are kept as run-length codes: few hundred bytes each."""
    wanted = request.wanted()
    found = request.source.regions(unit.pictures, wanted)
    for (image, picture), regions in zip(unit.pictures, found, strict=True):
        if isinstance(regions, InputError):
            outcome.failures.append(_failure(image, regions))
            continue
        large = [region for region in regions if int(region.mask.sum()) >= request.min_area]
        segments = [_stored(image, picture, region, wanted[region.label]) for region in large]
        stored = live_labels([segment.segment_id for segment in segments])
        outcome.stored.update(stored)
        outcome.elsewhere.update(
            (segment.label, stored[segment.segment_id])
            for segment in segments
            if stored.get(segment.segment_id, segment.label) != segment.label
        )
        fresh: dict[int, StoredSegment] = {}
        for segment in segments:
            if segment.segment_id not in stored:
                fresh.setdefault(segment.segment_id, segment)
        outcome.known += len(segments) - len(fresh)
        if fresh:
            yield _Fresh(image, picture, tuple(fresh.values()))


def _pool(
    segments: Sequence[StoredSegment],
    picture: Picture,
    dense: DenseFeatures,
    encoder: DenseEncoder,
    thumbnails: int,
    outcome: _Outcome,
) -> int:
    """Vectors and thumbnails of some segments of a picture; returns how many have no features."""
    masks = np.stack([decode_mask(segment.mask_counts, picture.size) for segment in segments])
    keys = embed_regions(encoder, dense, torch.from_numpy(masks)).cpu().numpy().astype(np.float32, copy=False)
    usable = np.isfinite(keys).all(axis=1) & (np.abs(keys).max(axis=1) > 0)
    outcome.vectors.append(keys[usable])
    for segment, mask, good in zip(segments, masks, usable, strict=True):
        if good:
            outcome.segments.append(segment)
            if thumbnails:
                outcome.thumbnails[segment.segment_id] = thumbnail(picture.pixels, mask, segment.box, thumbnails)
    return int((~usable).sum())


def _check_names(image: CorpusImage) -> None:
    """Refuse what cannot be stored as text: the name of a file may be any bytes."""
    if any(text != _printable(text) for text in (image.image_id, str(image.path))):
        raise ImageError(
            "E111",
            f"A name of {_printable(str(image.path))} is not UTF-8.",
            why="A database stores names as text.",
            fix="Rename the file.",
        )


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _failure(image: CorpusImage, error: InputError) -> Failure:
    message = f"{error.what} {error.why}".strip()
    return Failure(_printable(image.image_id), _printable(str(image.path)), error.code, message)


def _stored(image: CorpusImage, picture: Picture, region: Region, label: CorpusClass) -> StoredSegment:
    height, width = picture.size
    counts = encode_mask(region.mask)
    statement = next((item for item in image.labels if item.name == region.label), None)
    return StoredSegment(
        segment_id=segment_identity(image.source, picture.sha256, counts, (height, width)),
        label=label.name,
        label_raw=region.label,
        label_source=statement.source if statement else "human",
        label_confidence=statement.confidence if statement else 1.0,
        source=image.source,
        split=image.split,
        image_id=image.image_id,
        image_uri=str(image.path),
        image_sha256=picture.sha256,
        image_width=width,
        image_height=height,
        box=region.box,
        area=int(region.mask.sum()),
        mask_counts=counts,
        box_source=region.box_source,
        mask_source=region.mask_source,
        detector_score=region.detector_score,
        mask_iou=region.mask_iou,
        prompt_chunk=region.prompt_chunk,
        is_crowd=region.is_crowd,
        is_thing=region.is_thing,
        license=image.license,
        attribution=image.attribution,
    )


def thumbnail(
    pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_], box: tuple[float, float, float, float], side: int
) -> bytes:
    """JPEG of a region's surroundings, at most `side` pixels: the region in full light, the rest dimmed."""
    height, width = mask.shape
    margin = 0.15 * max(box[2] - box[0], box[3] - box[1])
    x0, y0 = max(0, int(box[0] - margin)), max(0, int(box[1] - margin))
    x1, y1 = min(width, int(box[2] + margin) + 1), min(height, int(box[3] + margin) + 1)
    crop, inside = pixels[y0:y1, x0:x1], mask[y0:y1, x0:x1, None]
    lit = np.where(inside, crop, (crop * 0.35 + 40).astype(np.uint8))
    image = Image.fromarray(lit)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
