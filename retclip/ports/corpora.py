"""Corpora: collections of pictures whose labels, boxes or masks can teach a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.images import Picture, decode_picture, read_picture

LabelSource = Literal["human", "machine", "caption", "folder", "table"]
RegionKind = Literal["masks", "boxes"]


@dataclass(frozen=True)
class CorpusClass:
    """One class of a corpus.

    Attributes:
        raw: the label exactly as the corpus spells it, e.g. `rug-merged`; unique inside a corpus.
        name: what a database shows, e.g. `rug`; raw labels that share it become one class.
        aliases: further names of the class, e.g. `rug-merged`.
        is_thing: countable object (True) or stuff; True where the corpus does not say.
    """

    raw: str
    name: str
    aliases: tuple[str, ...]
    is_thing: bool

    def __post_init__(self) -> None:
        require(
            bool(self.raw.strip()) and bool(self.name.strip()), "CorpusClass", "non-empty names", (self.raw, self.name)
        )


@dataclass(frozen=True)
class ImageLabel:
    """A statement about a whole picture.

    Attributes:
        name: the label as found (`CorpusClass.raw`).
        source: who said so.
        confidence: in [0, 1].
        present: False when the class was verified to be absent.
    """

    name: str
    source: LabelSource
    confidence: float
    present: bool

    def __post_init__(self) -> None:
        require(0.0 <= self.confidence <= 1.0, "ImageLabel.confidence", "in [0, 1]", self.confidence)


@dataclass(frozen=True)
class CorpusImage:
    """One picture of a corpus; its pixels are not read yet.

    Attributes:
        source: name of the corpus, e.g. `coco`.
        image_id: unique inside the corpus and split.
        path: the picture file, or the archive that holds it.
        split: `train`, `val2017`, ..., empty where the corpus has none.
        labels: statements about the whole picture.
        captions: sentences about it.
        license: name of the licence, empty if unknown.
        attribution: author or address to credit, empty if unknown.
        data: the encoded picture where it is no file of its own (a member of an archive, a cell of a table).
    """

    source: str
    image_id: str
    path: Path
    split: str
    labels: tuple[ImageLabel, ...] = ()
    captions: tuple[str, ...] = ()
    license: str = ""
    attribution: str = ""
    data: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        require(bool(self.image_id), "CorpusImage.image_id", "not empty", repr(self.image_id))

    def read(self) -> Picture:
        """Decode the picture. Raises ImageError (E111..E114) for one that cannot be used."""
        if self.data is None:
            return read_picture(self.path)
        return decode_picture(self.data, f"{self.path}:{self.image_id}")


@dataclass(frozen=True)
class Region:
    """One labelled region of a picture.

    Attributes:
        label: as found (`CorpusClass.raw`).
        aliases: further names of its class.
        is_thing: countable object (True) or stuff.
        mask: (H, W) bool at the size of the upright picture, at least one pixel.
        box: x0, y0, x1, y1 in pixels, half-open.
        is_crowd: the region covers a group of instances.
        box_source, mask_source: the annotation each comes from (`coco.panoptic`, `ade20k.annotations`, `box`,
            `whole-image`, `folder.mask`, ...) or the name of the network that found it.
        detector_score, mask_iou: confidences of those networks, NaN where annotated.
        prompt_chunk: hash of the detector's prompt, empty where annotated.
    """

    label: str
    aliases: tuple[str, ...]
    is_thing: bool
    mask: npt.NDArray[np.bool_]
    box: tuple[float, float, float, float]
    is_crowd: bool
    box_source: str
    mask_source: str
    detector_score: float = nan
    mask_iou: float = nan
    prompt_chunk: str = ""

    def __post_init__(self) -> None:
        require(
            self.mask.ndim == 2 and self.mask.dtype == np.bool_,
            "Region.mask",
            "(H, W) bool",
            (self.mask.shape, self.mask.dtype),
        )
        require(bool(self.mask.any()), "Region.mask", "at least one pixel", 0)
        x0, y0, x1, y1 = self.box
        require(all(map(isfinite, self.box)) and x0 < x1 and y0 < y1, "Region.box", "finite x0 < x1, y0 < y1", self.box)


class Corpus(Protocol):
    """A readable corpus; opening one reads its annotations, never its pixels."""

    @property
    def name(self) -> str:
        """Short name kept with every stored segment, e.g. `coco`."""
        ...

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Every class the corpus can label, in its own order."""
        ...

    def size(self) -> int | None:
        """How many pictures `images` gives; None where only reading them all could tell (archives, streams)."""
        ...

    def images(self) -> Iterator[CorpusImage]:
        """Pictures that can be read, in an order that does not change between runs; no pixel is decoded."""
        ...

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Labelled regions of one picture.

        Args:
            image: one that `images` gave.
            size: (height, width) of the upright picture in pixels.
            kind: `masks` as annotated, or `boxes` as filled rectangles.

        Raises:
            ImageError: the annotation of this picture is missing, damaged or of another size.
        """
        ...

    def warnings(self) -> list[str]:
        """What a user should know before a build, e.g. pictures that are listed but missing; one sentence each."""
        ...
