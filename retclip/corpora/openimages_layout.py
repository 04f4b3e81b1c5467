"""Where a tree of Open Images keeps its photos and tables: as published, as FiftyOne or as Datumaro (CVAT) writes it.

```
published   train/<id>.jpg               *-annotations-human-imagelabels.csv ... in the root or a folder of the release
            or <id>.jpg in the root      train-masks/train-masks-<0..f>.zip, or their PNG files
FiftyOne    train/data/<id>.jpg          train/labels/{classifications,detections,segmentations}.csv
                                         train/labels/masks/<0..F>/*.png   train/metadata/{classes,image_ids}.csv
Datumaro    images/train/<id>.jpg        annotations/train-annotations-bbox.csv ...   masks/train/*.png
```
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retclip.core.errors import InputError
from retclip.corpora.annotations import missing_files

Table = Literal["labels", "machine", "boxes", "masks", "classes", "images"]

# Names of the splits in folders and in files.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("validation", "val"),
    "test": ("test",),
    "challenge2018": ("challenge2018", "challenge-2018"),
}
PHOTO_NAME = re.compile(r"([0-9a-f]{16})\.jpe?g", re.IGNORECASE)
DOWNLOADS = "https://storage.googleapis.com/openimages"

# Folders of the root that tables lie in; {split} stands for the spellings of a split.
_TABLE_FOLDERS = (
    "", "annotations", "labels", "metadata", "csv", "v7", "v6", "v5", "v4", "2018_04", "2018_04/{split}",
    "{split}", "{split}/labels", "{split}/metadata", "{split}/annotations",
)  # fmt: skip
_PHOTO_FOLDERS = ("{split}/data", "images/{split}", "{split}", "{split}/images")
_FLAT_FOLDERS = ("data", "images", "")
_MASK_FOLDERS = (
    "{split}-masks", "v5/{split}-masks", "masks/{split}", "{split}/masks", "{split}/labels/masks", "labels/masks",
    "masks", "",
)  # fmt: skip
_TABLE_NAMES: Mapping[Table, str] = {
    "labels": r"(oidv\d-)?{split}-annotations-human-imagelabels(-boxable)?|classifications",
    "machine": r"(oidv\d-)?{split}-annotations-machine-imagelabels",
    "boxes": r"(oidv\d-)?{split}-annotations-bbox|detections",
    "masks": r"(oidv\d-)?{split}-annotations-object-segmentation|segmentations",
    "classes": r"(oidv\d-)?class-descriptions(-boxable)?|classes",
    "images": r"(oidv\d-)?({split}-)?(images-(boxable-|with-labels-)?with-rotation|image_ids(_and_rotation)?)",
}


@dataclass(frozen=True)
class Tree:
    """One split of Open Images on disk.

    Attributes:
        root: the folder that holds all of it.
        split: `train`, `validation`, `test`, `challenge2018`; empty where photos of any split lie in one folder.
        photos: folder of the photos.
        tables: files by kind, the most complete first; a kind without file has none.
        masks: folders that may hold mask images or their zip files.
    """

    root: Path
    split: str
    photos: Path
    tables: Mapping[Table, tuple[Path, ...]]
    masks: tuple[Path, ...]

    def needs(self, table: Table) -> tuple[Path, ...]:
        """Files of a kind. Raises InputError E103 that says where to get them if there are none."""
        if self.tables[table]:
            return self.tables[table]
        raise missing_table(self.root, table, self.split)


def find_tree(root: Path, split: str | None) -> Tree:
    """Find one split.

    Args:
        root: the folder.
        split: its name; None takes train, or else the only split with photos, or photos without split.

    Raises:
        InputError: E103 if no such split is there, E101 if there is no photo at all.
    """
    wanted = None if split is None else known_split(split)
    found = {name: folder for name in SPLITS for folder in _photo_folders(root, name)[:1]}
    if wanted is None and len(found) == 1:
        wanted = next(iter(found))
    if wanted is None and found:
        wanted = "train" if "train" in found else None
    if wanted in found:
        return Tree(root, wanted, found[wanted], find_tables(root, wanted), _mask_folders(root, wanted))
    flat = next((root / place for place in _FLAT_FOLDERS if _has_photos(root / place)), None)
    if flat is None or found:
        raise _no_photos(root, split, list(found))
    return Tree(root, wanted or "", flat, find_tables(root, wanted), _mask_folders(root, wanted))


def find_tables(root: Path, split: str | None) -> dict[Table, tuple[Path, ...]]:
    """Table files of a split (None: of all splits) by kind; only names are looked at."""
    spellings = _spellings(split)
    folders = [root / place.format(split=name) for place in _TABLE_FOLDERS for name in spellings]
    files = [file for folder in dict.fromkeys(folders) if folder.is_dir() for file in _csv_files(folder)]
    found: dict[Table, tuple[Path, ...]] = {}
    for table, pattern in _TABLE_NAMES.items():
        name = re.compile(pattern.replace("{split}", f"({'|'.join(spellings)})"), re.IGNORECASE)
        matching = dict.fromkeys(file for file in files if name.fullmatch(file.stem))
        # The boxable variants hold part of the rows of the others; reading both would cost time for nothing.
        complete = [file for file in matching if not file.stem.endswith("-boxable")]
        found[table] = tuple(complete or matching)
    return found


def missing_table(root: Path, table: Table, split: str) -> InputError:
    """Error E103 for tables that are not on disk, with the address of the published one."""
    name = split or "train"
    address = f"{DOWNLOADS}/{_published(table, name)}"
    return InputError(
        "E103",
        f"Open Images: no table of {table} in {root}.",
        why=f"Looked for {address.rpartition('/')[2]} and its other names.",
        fix=f"Download {address} into this folder.",
    )


def _published(table: Table, split: str) -> str:
    if table == "classes":
        return "v7/oidv7-class-descriptions.csv"
    if table == "labels":
        return f"v7/oidv7-{'val' if split == 'validation' else split}-annotations-human-imagelabels.csv"
    if table == "masks":
        return f"v5/{split}-annotations-object-segmentation.csv"
    return "v6/oidv6-train-annotations-bbox.csv" if split == "train" else f"v5/{split}-annotations-bbox.csv"


def photo_ids(folder: Path) -> tuple[dict[str, str], int]:
    """File names of photos by image id, in the order of the ids, and how many pictures have other names."""
    found, others = {}, 0
    with os.scandir(folder) as entries:
        for entry in entries:
            match = PHOTO_NAME.fullmatch(entry.name)
            if match and entry.is_file():
                found[match[1].lower()] = entry.name
            elif entry.name.casefold().endswith((".jpg", ".jpeg", ".png")):
                others += 1
    return dict(sorted(found.items())), others


def known_split(split: str) -> str:
    """The name of a split in any of its spellings (`val` is `validation`). Raises InputError E103 for another."""
    for name, spellings in SPLITS.items():
        if split in spellings:
            return name
    raise InputError(
        "E103", f"Open Images has no split '{split}'.", why=f"Splits are {', '.join(SPLITS)}.", fix="Check --split."
    )


def _spellings(split: str | None) -> tuple[str, ...]:
    return SPLITS[split] if split else tuple(name for names in SPLITS.values() for name in names)


def _photo_folders(root: Path, split: str) -> list[Path]:
    places = [root / place.format(split=name) for place in _PHOTO_FOLDERS for name in SPLITS[split]]
    return [place for place in places if _has_photos(place)]


def _mask_folders(root: Path, split: str | None) -> tuple[Path, ...]:
    places = [root / place.format(split=name) for place in _MASK_FOLDERS for name in _spellings(split)]
    return tuple(place for place in dict.fromkeys(places) if place.is_dir())


def _has_photos(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(PHOTO_NAME.fullmatch(entry.name) for entry in entries)


def _csv_files(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.glob("*.csv") if path.is_file()))


def _no_photos(root: Path, split: str | None, found: list[str]) -> InputError:
    archives = sorted(path.name for path in root.glob("*.tar.gz"))
    if found:
        return InputError(
            "E103",
            f"No photos of split '{split or 'train'}' in {root}.",
            why=f"There are photos of {', '.join(found)}.",
            fix="Name one of them with --split.",
        )
    return InputError(
        "E101",
        f"No images under {root}.",
        why="Looked for <16 hexadecimal digits>.jpg. " + " ".join(missing_files("archives are there", archives)),
        fix="Unpack the archives." if archives else "Fetch some: retclip corpora fetch openimages --root DIR ...",
    )
