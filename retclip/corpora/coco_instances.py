"""COCO instance annotations, captions, or both; for the panoptic ones see `coco`.

```
annotations/instances_train2017.json   outlines (polygons) of things, run lengths of crowds
annotations/captions_train2017.json    sentences; enough on its own, for labels that are mined from captions
train2017/*.jpg   or   images/train2017/*.jpg
```
JSON cannot be streamed: outlines become packed numbers while it is parsed, about 0.7 GB for train2017.
Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from retclip.core.errors import InputError
from retclip.core.images import MAX_PIXELS
from retclip.core.rle import decode_mask, paint_runs
from retclip.corpora.annotations import file_names, misfit, missing_files, read_json, rectangle
from retclip.corpora.coco_listing import NAME, choose_split, first_folder, list_images, read_captions
from retclip.ports.corpora import CorpusClass, CorpusImage, Region, RegionKind

# A triangle; pycocotools takes four numbers for a box.
_LEAST_NUMBERS = 6


class _Runs(NamedTuple):
    size: tuple[int, int]
    counts: bytes | array[int]


class _Instance(NamedTuple):
    image_id: str
    category_id: int
    box: tuple[float, float, float, float]
    is_crowd: bool
    outline: tuple[array[float], ...] | _Runs


class CocoInstances:
    """Photos with COCO instance annotations; labels are category names as COCO spells them.

    Args:
        root: folder that holds `annotations/`.
        split: `train2017`, or `train` for the only split that starts so; None takes train, or else the only split.

    Raises:
        InputError: E103 if the split, its photos or a readable annotation file is missing, E101 if no listed photo is
            on disk.
    """

    name = NAME

    def __init__(self, root: Path, split: str | None = None) -> None:
        annotations = root / "annotations"
        self.split = choose_split(annotations, ("instances", "captions"), split)
        self._path = annotations / f"instances_{self.split}.json"
        captions = annotations / f"captions_{self.split}.json"
        self._has_instances = self._path.is_file()
        folder = first_folder(root / self.split, root / "images" / self.split)
        listed = self._read(self._path if self._has_instances else captions, captions, folder)
        present = file_names(folder)
        self._photos = [image for image in listed if image.path.name in present]
        self._missing = [image.path.name for image in listed if image.path.name not in present]
        if not self._photos:
            raise InputError(
                "E101",
                f"No images under {folder}.",
                why=f"None of the {len(listed):,} photos that the annotations list is there.",
                fix=f"Put the photos of {self.split} into this folder.",
            )

    def _read(self, path: Path, captions: Path, folder: Path) -> list[CorpusImage]:
        content = read_json(path, _compact)
        self._instances: defaultdict[str, list[_Instance]] = defaultdict(list)
        self._empty = 0
        try:
            categories = content["categories"] if self._has_instances else ()
            self._classes = {int(c["id"]): CorpusClass(str(c["name"]), str(c["name"]), (), True) for c in categories}
            for item in content["annotations"] if self._has_instances else ():
                x0, y0, x1, y1 = item.box
                if x0 < x1 and y0 < y1:
                    self._instances[item.image_id].append(item)
                else:
                    self._empty += 1
            return list(list_images(content, folder, self.split, self._names, read_captions(captions)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "E103",
                f"{path} is not a COCO annotation file.",
                why=f"{type(error).__name__}: {error}",
                fix="Use instances_*.json and captions_*.json of annotations_trainval2017.zip.",
            ) from error

    def _names(self, image_id: str) -> list[str]:
        return [self._classes[item.category_id].raw for item in self._instances.get(image_id, ())]

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """The categories of the annotation file, all things; none where there are only captions."""
        return tuple(self._classes.values())

    def size(self) -> int:
        """Pictures that `images` gives."""
        return len(self._photos)

    def images(self) -> Iterator[CorpusImage]:
        """Photos on disk in the order of their ids."""
        yield from self._photos

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Instances of a photo, crowds included; see `Corpus.regions`. A box is the annotated one, clipped.

        Outlines that are too thin to cover a pixel are left out.

        Raises:
            InputError: E106 where there are only captions.
        """
        if not self._has_instances:
            raise InputError(
                "E106",
                f"There are no {kind} for split {self.split}.",
                why=f"{self._path} does not exist; captions alone say nothing about regions.",
                fix="Copy it there, or leave out --use-boxes and --use-masks.",
            )
        name, regions = str(image.path), []
        for item in self._instances.get(image.image_id, ()):
            box, filled = rectangle(name, item.box, size)
            mask = filled if kind == "boxes" else _paint(name, item.outline, size)
            if mask.any():
                label = self._classes[item.category_id].raw
                source = "box" if kind == "boxes" else "coco.instances"
                regions.append(Region(label, (), True, mask, box, item.is_crowd, "coco.instances", source))
        return regions

    def warnings(self) -> list[str]:
        """Photos that are listed but missing, and instances without area."""
        empty = [f"{self._empty:,} instances have a box without area and are left out"] if self._empty else []
        return [*missing_files("listed photos are not on disk and are left out", self._missing), *empty]


def _compact(item: dict[str, Any]) -> dict[str, Any] | _Instance:
    if "segmentation" not in item:
        return item
    x, y, width, height = map(float, item["bbox"])
    return _Instance(
        str(item["image_id"]),
        int(item["category_id"]),
        (x, y, x + width, y + height),
        bool(item["iscrowd"]),
        _pack(item["segmentation"]),
    )


def _pack(outline: Any) -> tuple[array[float], ...] | _Runs:
    if isinstance(outline, list):
        return tuple(array("d", polygon) for polygon in outline if len(polygon) >= _LEAST_NUMBERS)
    height, width = map(int, outline["size"])
    counts = outline["counts"]
    try:
        return _Runs((height, width), counts.encode("ascii") if isinstance(counts, str) else array("q", counts))
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _paint(name: str, outline: tuple[array[float], ...] | _Runs, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if not isinstance(outline, _Runs):
        return _fill(name, outline, size)
    if outline.size != size:
        raise misfit(name, f"A mask has {outline.size} pixels (height, width), the upright picture has {size}.")
    try:
        if isinstance(outline.counts, bytes):
            return decode_mask(outline.counts, size)
        return paint_runs(np.asarray(outline.counts, np.int64), size)
    except ValueError as error:
        raise misfit(name, str(error)) from error


def _fill(name: str, polygons: tuple[array[float], ...], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    height, width = size
    # pycocotools takes memory for every pixel along an outline, also outside the picture, and does not look for NaN.
    reach = 2 * max(height, width)
    for polygon in polygons:
        if not (np.abs(np.asarray(polygon)) <= reach).all() or len(polygon) * reach > MAX_PIXELS or len(polygon) % 2:
            raise misfit(name, f"An outline of {len(polygon)} numbers leaves {width} x {height} pixels by far.")
    if not polygons:
        return np.zeros(size, np.bool_)
    codes = coco_mask.frPyObjects([list(polygon) for polygon in polygons], height, width)
    return decode_mask(coco_mask.merge(codes)["counts"], size)
