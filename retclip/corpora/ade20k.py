"""ADE20K scene parsing, the ADEChallengeData2016 release with 150 classes.

```
images/{training,validation}/ADE_*.jpg
annotations/{training,validation}/ADE_*.png            0 = other objects, 1..150 = class
objectInfo150.txt                                      names of the classes
annotations_instance/{training,validation}/ADE_*.png   optional: R = instance class 1..100, G = instance, 0 = none
ade20k_instance_catid_mapping.txt                      optional: instance class -> class
```
A class image cannot separate two chairs that touch, or even two that do not: without the two optional parts every
class of a picture is one region. With both, things become one region per instance and stuff stays one per class.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ImageError, InputError
from retclip.core.images import read_annotation
from retclip.core.rle import mask_box
from retclip.corpora.annotations import check_size, file_names, misfit, missing_files, read_lines, rectangle
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind

CLASSES = 150
# The 50 stuff classes of the panoptic protocol. The Stuff column of objectInfo150.csv lists only 35 of them.
_STUFF_NUMBERS = """
    1 2 3 4 5 6 7 10 12 14 17 18 22 26 27 29 30 35 41 47 49 52 53 55 60 61 62 64 69 78
    80 85 92 95 97 100 101 102 106 107 110 114 115 118 123 129 132 141 142 146
"""
STUFF = frozenset(map(int, _STUFF_NUMBERS.split()))
_MAPPING = "ade20k_instance_catid_mapping.txt"
_SPLITS = {"train": "training", "val": "validation"}


class Ade20kCorpus:
    """Photos of ADEChallengeData2016; a label is the full name of its class, e.g. `building, edifice`.

    Args:
        root: folder that holds `images/` and `annotations/`.
        split: `training` or `train`, `validation` or `val`; None takes training, or else the only split.

    Raises:
        InputError: E103 if the split or objectInfo150.txt is missing, E101 if the split has no photo.
    """

    name = "ade20k"

    def __init__(self, root: Path, split: str | None = None) -> None:
        self.split = _choose_split(root, split)
        self._photos = root / "images" / self.split
        self._maps = root / "annotations" / self.split
        self._instances = root / "annotations_instance" / self.split
        self._classes = read_object_info(root / "objectInfo150.txt")
        has_instances = self._instances.is_dir() and (root / _MAPPING).is_file()
        self._mapping = _read_mapping(root / _MAPPING) if has_instances else {}
        present = sorted(name for name in file_names(self._photos) if name.casefold().endswith((".jpg", ".jpeg")))
        maps = file_names(self._maps)
        self._names = [name for name in present if f"{Path(name).stem}.png" in maps]
        self._unlabelled = [name for name in present if f"{Path(name).stem}.png" not in maps]
        self._damaged: dict[str, None] = {}
        if not self._names:
            raise InputError(
                "E101",
                f"No images under {self._photos}.",
                why=f"{len(present):,} photos are there, none with a class image in {self._maps}.",
                fix="Unpack the whole of ADEChallengeData2016.zip.",
            )

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """The 150 classes in the order of their numbers; the first synonym is the name."""
        return tuple(self._classes.values())

    def size(self) -> int:
        """Pictures that `images` gives."""
        return len(self._names)

    def images(self) -> Iterator[CorpusImage]:
        """Photos in the order of their names, labelled with every class that their class image holds.

        The release lists no labels, so the class image (not the photo) is decoded, some milliseconds each. A photo
        whose class image is damaged has no labels; `warnings` names it afterwards and `regions` refuses it.
        """
        for name in self._names:
            path = self._photos / name
            try:
                present = np.unique(self._class_map(path)).tolist()
            except ImageError:
                self._damaged[name] = None
                present = []
            labels = tuple(ImageLabel(self._classes[n].raw, "human", 1.0, True) for n in present if n > 0)
            yield CorpusImage(self.name, path.stem, path, self.split, labels)

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Regions of one photo, see `Corpus.regions`; a box is the tight box of a mask."""
        numbers = self._class_map(image.path)
        check_size(str(image.path), numbers.shape, size)
        if self._mapping:
            masked = [(n, mask, "ade20k.annotations_instance") for n, mask in self._instance_masks(image.path, size)]
            stuff = [n for n in np.unique(numbers).tolist() if n in STUFF]
        else:
            masked, stuff = [], [n for n in np.unique(numbers).tolist() if n > 0]
        masked += [(n, numbers == n, "ade20k.annotations") for n in stuff]
        regions = []
        for number, mask, source in sorted(masked, key=lambda item: item[0]):
            known = self._classes[number]
            box, filled = rectangle(str(image.path), mask_box(mask), size)
            chosen, mask_source = (filled, "box") if kind == "boxes" else (mask, source)
            regions.append(Region(known.raw, known.aliases, known.is_thing, chosen, box, False, source, mask_source))
        return regions

    def warnings(self) -> list[str]:
        """Photos without class image, and damaged class images that `images` has met so far."""
        return [
            *missing_files("photos have no class image and are left out", self._unlabelled),
            *missing_files("photos have a damaged class image and no labels", list(self._damaged)),
        ]

    def _class_map(self, path: Path) -> npt.NDArray[np.integer]:
        numbers = read_annotation(self._maps / f"{path.stem}.png")
        if numbers.ndim != 2 or int(numbers.max(initial=0)) > CLASSES:
            raise misfit(str(path), f"{path.stem}.png is no class image with values 0..{CLASSES}.")
        return numbers

    def _instance_masks(self, path: Path, size: tuple[int, int]) -> list[tuple[int, npt.NDArray[np.bool_]]]:
        colours = read_annotation(self._instances / f"{path.stem}.png")
        check_size(str(path), colours.shape[:2], size)
        if colours.ndim != 3:
            raise misfit(str(path), f"{path.stem}.png in {self._instances} has no colours.")
        # Class and instance in one number; instance 0 means none, whatever the class.
        codes = colours[..., 0].astype(np.int32) * 256 + colours[..., 1]
        found = [code for code in np.unique(codes).tolist() if code % 256]
        unknown = sorted({code // 256 for code in found} - set(self._mapping))
        if unknown:
            raise misfit(str(path), f"Instance classes {unknown[:5]} are not in {_MAPPING}.")
        return [(self._mapping[code // 256], codes == code) for code in found]


def read_object_info(path: Path) -> dict[int, CorpusClass]:
    """Classes by number (1..150) from objectInfo150.txt.

    Raises:
        InputError: E103 if the file is missing or another table.
    """
    classes = {}
    for number, line in enumerate(read_lines(path)[1:], start=2):
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 5 or not cells[0].isdecimal() or not 1 <= int(cells[0]) <= CLASSES:
            raise _wrong_table(path, f"Line {number} is not: Idx, Ratio, Train, Val, Name (separated by tabs).")
        names = [name.strip() for name in cells[4].split(",") if name.strip()]
        if not names:
            raise _wrong_table(path, f"Line {number} has no name.")
        index = int(cells[0])
        classes[index] = CorpusClass(", ".join(names), names[0], tuple(names[1:]), index not in STUFF)
    if len(classes) != CLASSES:
        raise _wrong_table(path, f"It has {len(classes)} classes, not {CLASSES}.")
    return classes


def _read_mapping(path: Path) -> dict[int, int]:
    mapping = {}
    for number, line in enumerate(read_lines(path)[1:], start=2):
        cells = line.split()
        if len(cells) < 2 or not (cells[0].isdecimal() and cells[1].isdecimal() and 1 <= int(cells[1]) <= CLASSES):
            raise _wrong_table(path, f"Line {number} is not: Instance100, SceneParse150, FullADE20K.")
        mapping[int(cells[0])] = int(cells[1])
    return mapping


def _wrong_table(path: Path, why: str) -> InputError:
    return InputError(
        "E103", f"Cannot use {path}.", why=why, fix="Copy it again from the ADEChallengeData2016 release."
    )


def _choose_split(root: Path, split: str | None) -> str:
    found = [
        name for name in _SPLITS.values() if all((root / kind / name).is_dir() for kind in ("images", "annotations"))
    ]
    wanted = _SPLITS.get(split or "train", split or "")
    if wanted in found:
        return wanted
    if split is None and len(found) == 1:
        return found[0]
    raise InputError(
        "E103",
        f"No split '{split or 'train'}' in {root}.",
        why=f"Found the splits: {', '.join(found) or 'none'}; a split needs images/<split> and annotations/<split>.",
        fix="Name one with --split, or unpack the whole of ADEChallengeData2016.zip.",
    )
