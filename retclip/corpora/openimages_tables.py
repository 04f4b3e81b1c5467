"""The tables of Open Images, streamed: of files with gigabytes only the rows of photos that are on disk stay.

Memory, measured on 20,000 photos: 0.45 kB per photo with ten labels (equal statements are one object), 0.3 kB more with
eight boxes, 0.3 kB per mask, 0.25 kB per author and title. Rows of other photos cost time alone, 0.65 s per million.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from retclip.core.errors import require
from retclip.core.vocabulary import normalise_name
from retclip.corpora.columns import read_columns
from retclip.corpora.rows import table_problem
from retclip.ports.corpora import CorpusClass, ImageLabel
from retclip.vocabularies import load_vocabulary

# Class number, XMin, XMax, YMin, YMax, number of the source, whether it is a group.
_BOX = struct.Struct("<I4fB?")
_LICENSE = "CC BY 2.0"


class Box(NamedTuple):
    """label: machine id of the class; corners: x0, y0, x1, y1 in [0, 1]; source: who drew it, e.g. `xclick`."""

    label: str
    corners: tuple[float, float, float, float]
    source: str
    is_group: bool


class Mask(NamedTuple):
    """label: machine id of the class; name: of the mask image."""

    label: str
    name: str


class Credit(NamedTuple):
    """license: its name, or address if it is not the usual one; attribution: title and author."""

    license: str
    attribution: str


def read_class_names(paths: Sequence[Path]) -> dict[str, CorpusClass]:
    """Classes by machine id (`/m/01g317`), in the order of the files; the first file that names a class decides.

    Files of V7 begin with a header, those of V5 do not: a first line is a header unless it starts with a machine id.
    A class is stuff if a panoptic class list of this package calls it so and none calls it a thing.

    Raises:
        InputError: E105 naming the line that is no pair of machine id and name.
    """
    classes: dict[str, CorpusClass] = {}
    for path in paths:
        for number, row in enumerate(_rows(path), start=1):
            is_class = bool(row) and row[0].startswith(("/m/", "/g/"))
            if is_class and len(row) > 1 and row[1].strip():
                name = row[1].strip()
                is_thing = normalise_name(name) not in _stuff_names()
                classes.setdefault(row[0], CorpusClass(row[0], name, (), is_thing))
            elif row and (is_class or number > 1):
                raise table_problem(path, number, f"{row[0][:40]!r} is no class with a name.", "Download it again.")
    return classes


def read_labels(paths: Sequence[Path], photos: Collection[str], machine: float | None) -> dict[str, list[ImageLabel]]:
    """Statements about photos by image id.

    Args:
        paths: tables of human or machine labels; human labels with confidence 1 say present, with 0 absent.
        photos: ids of the photos to keep.
        machine: labels by a machine count from this confidence on; None takes none.

    Raises:
        InputError: E105 for a file that is no such table.
    """
    shared: dict[tuple[str, str, str], ImageLabel | None] = {}
    found: dict[str, list[ImageLabel]] = {}
    for path in paths:
        for image_id, source, name, confidence in read_columns(path, ("ImageID", "Source", "LabelName", "Confidence")):
            if image_id not in photos:
                continue
            key = (source, name, confidence)
            if key not in shared:
                shared[key] = _statement(path, *key, machine)
            label = shared[key]
            if label is not None:
                found.setdefault(image_id, []).append(label)
    return found


def _statement(path: Path, source: str, name: str, confidence: str, machine: float | None) -> ImageLabel | None:
    try:
        value = float(confidence)
        if source == "machine":
            is_wanted = machine is not None and value >= machine
            return ImageLabel(name, "machine", value, True) if is_wanted else None
        require(0 <= value <= 1, "confidence", "in [0, 1]", confidence)
        return ImageLabel(name, "human", 1.0, value > 0)
    except ValueError as error:
        raise table_problem(path, None, f"Confidence of {name}: {error}", "Download the file again.") from error


class BoxTable:
    """Boxes of photos. Depictions (drawings, statues) are left out, groups too unless their class is stuff.

    Args:
        paths: tables of boxes.
        photos: ids of the photos to keep.
        classes: by machine id; boxes of others are left out.

    Raises:
        InputError: E105 for a file that is no such table.
    """

    def __init__(self, paths: Sequence[Path], photos: Collection[str], classes: Mapping[str, CorpusClass]) -> None:
        self._packed: dict[str, bytearray] = {}
        self._names = list(classes)
        self._sources: list[str] = []
        numbers = {name: number for number, name in enumerate(self._names)}
        corners = ("XMin", "XMax", "YMin", "YMax")
        for path in paths:
            rows = read_columns(path, ("ImageID", "LabelName", *corners), ("Source", "IsGroupOf", "IsDepiction"))
            for image_id, name, *numerals, source, group, depiction in rows:
                # Attributes are 1, 0 or -1 for unknown.
                if image_id not in photos or name not in numbers or depiction == "1":
                    continue
                if group == "1" and classes[name].is_thing:
                    continue
                sides = _parse_sides(path, image_id, numerals)
                packed = _BOX.pack(numbers[name], *sides, self._source(source), group == "1")
                self._packed.setdefault(image_id, bytearray()).extend(packed)

    def boxes(self, image_id: str) -> Iterator[Box]:
        """Boxes of one photo in the order of the table."""
        for number, x0, x1, y0, y1, source, is_group in _BOX.iter_unpack(self._packed.get(image_id, b"")):
            yield Box(self._names[number], (x0, y0, x1, y1), self._sources[source], is_group)

    def _source(self, text: str) -> int:
        # The name is kept with segments and shown: only plain words, and few of them.
        name = text if text.isalnum() and len(self._sources) < 200 else "boxes"
        if name not in self._sources:
            self._sources.append(name)
        return self._sources.index(name)


def read_masks(
    paths: Sequence[Path], photos: Collection[str], classes: Mapping[str, CorpusClass]
) -> dict[str, list[Mask]]:
    """Mask images by image id. Raises InputError E105 for a file that is no such table."""
    found: dict[str, list[Mask]] = {}
    for path in paths:
        for image_id, name, mask in read_columns(path, ("ImageID", "LabelName", "MaskPath")):
            if image_id in photos and name in classes:
                found.setdefault(image_id, []).append(Mask(classes[name].raw, mask))
    return found


def read_credits(paths: Sequence[Path], photos: Collection[str]) -> dict[str, Credit]:
    """Licence, author and title by image id. Raises InputError E105 for a file that is no such table."""
    found = {}
    for path in paths:
        for image_id, license_, author, title in read_columns(path, ("ImageID",), ("License", "Author", "Title")):
            if image_id in photos:
                is_usual = not license_ or "/by/2.0" in license_
                credit = " by ".join(part.strip() for part in (title, author) if part.strip())
                found[image_id] = Credit(_LICENSE if is_usual else license_, credit)
    return found


def _parse_sides(path: Path, image_id: str, numerals: Sequence[str]) -> list[float]:
    try:
        sides = [float(text) for text in numerals]
        # Boxes are shares of the picture; what lies a little outside is clipped later.
        require(all(abs(side) <= 2 for side in sides), "XMin, XMax, YMin, YMax", "in [0, 1]", sides)
        return sides
    except ValueError as error:
        raise table_problem(path, None, f"A box of {image_id}: {error}", "Download the file again.") from error


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, strict=True)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise table_problem(path, None, str(error), "Download the file again.") from error


@cache
def _stuff_names() -> frozenset[str]:
    categories = [category for name in ("@coco133", "@ade150") for category in load_vocabulary(name)]
    things, stuff = (
        {normalise_name(name) for category in categories if category.is_thing == kind for name in category.names}
        for kind in (True, False)
    )
    return frozenset(stuff - things)
