"""One unit of work: pictures in, stored segments and vectors out. No state, so any executor can run it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.core.rle import encode_mask
from retclip.core.segments import StoredSegment, segment_identity
from retclip.indexer.plan import BuildRequest, WorkUnit
from retclip.ports.corpora import CorpusClass, CorpusImage, Region
from retclip.ports.encoders import DenseEncoder, DenseFeatures, embed_regions


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
        known: segments that were in the database before.
        elsewhere: how many of those came with a label (first) other than the stored one (second).
    """

    segments: tuple[StoredSegment, ...]
    vectors: npt.NDArray[np.float32]
    thumbnails: Mapping[int, bytes]
    failures: tuple[Failure, ...]
    known: int
    elsewhere: Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class _Loaded:
    image: CorpusImage
    picture: Picture
    regions: tuple[Region, ...]
    segments: tuple[StoredSegment, ...]


def run_unit(
    unit: WorkUnit,
    request: BuildRequest,
    encoder: DenseEncoder,
    live_labels: Callable[[Collection[int]], Mapping[int, str]],
) -> UnitResult:
    """Read, encode and pool the pictures of one unit; a picture that fails is named and the others go on.

    Args:
        live_labels: those of some segment ids that the database holds, with their classes; they are not encoded again.
    """
    wanted = request.wanted()
    loaded, failures, known = [], [], 0
    elsewhere: Counter[tuple[str, str]] = Counter()
    for image in unit.images:
        try:
            item = _load(image, request, wanted)
        except InputError as error:
            failures.append(Failure(image.image_id, str(image.path), error.code, f"{error.what} {error.why}".strip()))
            continue
        stored = live_labels([segment.segment_id for segment in item.segments])
        elsewhere.update(
            (segment.label, stored[segment.segment_id])
            for segment in item.segments
            if stored.get(segment.segment_id, segment.label) != segment.label
        )
        fresh = _without(item, stored)
        known += len(item.segments) - len(fresh.segments)
        if fresh.segments:
            loaded.append(fresh)
    features = encoder.encode_images([item.picture.pixels for item in loaded]) if loaded else []
    segments: list[StoredSegment] = []
    thumbnails: dict[int, bytes] = {}
    vectors = [np.zeros((0, encoder.space.dim), np.float32)]
    for item, dense in zip(loaded, features, strict=True):
        keys = _keys(encoder, dense, item.regions)
        usable = np.isfinite(keys).all(axis=1) & (np.abs(keys).max(axis=1) > 0)
        if not usable.all():
            failures.append(
                Failure(
                    item.image.image_id,
                    str(item.image.path),
                    "E116",
                    f"{int((~usable).sum())} regions have no features (all zero or not finite).",
                )
            )
        vectors.append(keys[usable])
        for segment, region, good in zip(item.segments, item.regions, usable, strict=True):
            if good:
                segments.append(segment)
                if request.thumbnails:
                    thumbnails[segment.segment_id] = thumbnail(
                        item.picture.pixels, region.mask, region.box, request.thumbnails
                    )
    return UnitResult(tuple(segments), np.concatenate(vectors), thumbnails, tuple(failures), known, elsewhere)


def _load(image: CorpusImage, request: BuildRequest, wanted: Mapping[str, CorpusClass]) -> _Loaded:
    picture = image.read()
    regions = tuple(
        region
        for region in request.corpus.regions(image, picture.size, request.kind)
        if region.label in wanted and int(region.mask.sum()) >= request.min_area
    )
    segments = tuple(_stored(image, picture, region, wanted[region.label]) for region in regions)
    return _Loaded(image, picture, regions, segments)


def _without(item: _Loaded, known: Collection[int]) -> _Loaded:
    """The same picture without segments that are known, and without repeats inside the picture."""
    seen = set(known)
    keep = []
    for index, segment in enumerate(item.segments):
        if segment.segment_id not in seen:
            seen.add(segment.segment_id)
            keep.append(index)
    return _Loaded(
        item.image, item.picture, tuple(item.regions[i] for i in keep), tuple(item.segments[i] for i in keep)
    )


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
        detector_score=float("nan"),
        mask_iou=float("nan"),
        prompt_chunk="",
        is_crowd=region.is_crowd,
        is_thing=region.is_thing,
        license=image.license,
        attribution=image.attribution,
    )


def _keys(encoder: DenseEncoder, dense: DenseFeatures, regions: tuple[Region, ...]) -> npt.NDArray[np.float32]:
    masks = torch.from_numpy(np.stack([region.mask for region in regions]))
    return embed_regions(encoder, dense, masks).cpu().numpy().astype(np.float32, copy=False)


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
