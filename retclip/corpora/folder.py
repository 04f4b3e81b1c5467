"""A folder of photos, one subfolder per class.

```
root/red_car/**/*.jpg        class "red car"
root/classes.txt             optional: folder<TAB>name, synonym, ...  (the name may follow `thing:` or `stuff:`)
<photo>.txt                  optional: captions, one per line
<photo>.mask.png             optional: the region to learn, any pixel that is not 0
```
Photos directly in the root belong to no class and count only if they have captions, or if the reader is told the one
class that they all show.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ImageError, InputError
from retclip.core.images import read_annotation
from retclip.core.rle import mask_box
from retclip.corpora.annotations import check_size, misfit, missing_files, read_lines
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind
from retclip.vocabularies.entries import parse_names

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_MASK_ENDING = ".mask.png"
SPLIT_NAMES = frozenset({"train", "training", "val", "validation", "test", "testing"})


class FolderCorpus:
    """Photos whose class is the first folder below the root, however deep they lie; a single class folder counts too.

    Args:
        root: the folder.
        split: a subfolder of it (`train`) that holds the class folders; None takes the root itself.
        flat: the class of all photos when the root holds photos and no class folder.

    Raises:
        InputError: E101 if there is no photo, E103 for an unreadable classes.txt, E106 if no photo has a class or a
            caption, or if all class folders are named like splits.
    """

    name = "folder"

    def __init__(self, root: Path, split: str | None = None, flat: CorpusClass | None = None) -> None:
        self.split = split or ""
        self._root = _subfolder(root, split)
        self._photos, self._skipped = _scan(self._root)
        if not self._photos:
            raise InputError(
                "E101",
                f"No images under {self._root}.",
                why=f"Looked for {', '.join(IMAGE_SUFFIXES)}; found {_endings(self._skipped)}.",
                fix="Unpack archives, or check --root.",
            )
        folders = dict.fromkeys(path.parts[0] for path in self._photos if len(path.parts) > 1)
        if folders and {folder.casefold() for folder in folders} <= SPLIT_NAMES:
            raise InputError(
                "E106",
                f"The folders of {self._root} are splits, not classes: {', '.join(folders)}.",
                why="The class of a photo is the name of the first folder below the root.",
                fix=f"Pass --split {next(iter(folders))}.",
            )
        self._names, self._unused = _read_classes(self._root / "classes.txt", folders)
        self._flat = None if folders else flat
        if self._flat is not None:
            self._names = {self._flat.raw: self._flat}
            self._loose: list[str] = []
            return
        self._loose = [p.name for p in self._photos if len(p.parts) == 1 and not _captions(self._root / p)]
        if not folders and len(self._loose) == len(self._photos):
            raise InputError(
                "E106",
                f"No label information: {len(self._photos):,} images, no folders, no captions.",
                why="Photos directly in the root belong to no class.",
                fix="Move them into one folder per class, or write captions beside them (<photo>.txt).",
            )

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Class folders in alphabetical order; underscores become blanks."""
        return tuple(self._names.values())

    def size(self) -> int:
        """Pictures that `images` gives."""
        return len(self._photos) - len(self._loose)

    def images(self) -> Iterator[CorpusImage]:
        """Photos in the order of their paths; the id is the path below the root (or split)."""
        loose = frozenset(self._loose)
        for relative in self._photos:
            if len(relative.parts) == 1 and relative.name in loose:
                continue
            path = self._root / relative
            name = self._flat.raw if self._flat else relative.parts[0] if len(relative.parts) > 1 else None
            label = (ImageLabel(name, "folder", 1.0, True),) if name else ()
            yield CorpusImage(self.name, str(relative), path, self.split, label, _captions(path))

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """The region of the photo's class, see `Corpus.regions`; none for a photo without class.

        `boxes` is the whole photo, `masks` the sidecar `<photo>.mask.png`.
        """
        if not image.labels:
            return []
        known = self._names[image.labels[0].name]
        if kind == "boxes":
            mask, origin = np.ones(size, dtype=np.bool_), "whole-image"
            box = (0.0, 0.0, float(size[1]), float(size[0]))
        else:
            mask, origin = _read_mask(image.path, size), "folder.mask"
            x0, y0, x1, y1 = mask_box(mask)
            box = (float(x0), float(y0), float(x1), float(y1))
        return [Region(known.raw, known.aliases, known.is_thing, mask, box, False, origin, origin)]

    def warnings(self) -> list[str]:
        """Files that are no photos, photos without class, and lines of classes.txt without folder."""
        single = [f"Only one class ('{name}'): every photo has it." for name in self._names]
        return [
            *(single if len(single) == 1 else []),
            *missing_files("files are no photos and are left out", self._skipped),
            *missing_files("photos have neither class folder nor captions and are left out", self._loose),
            *missing_files("lines of classes.txt name no class folder", self._unused),
        ]


def _subfolder(root: Path, split: str | None) -> Path:
    folder = root / (split or "")
    if split in (".", "..") or folder.parent != (root if split else root.parent) or not folder.is_dir():
        raise InputError(
            "E103",
            f"No split '{split}' in {root}.",
            why="A split is a subfolder.",
            fix="Check --split or leave it out.",
        )
    return folder


def _scan(root: Path) -> tuple[list[PurePosixPath], list[str]]:
    """Photos below the root, and names of other files; sidecars, classes.txt and mask images are neither."""
    photos, others = [], []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            relative = PurePosixPath((Path(folder) / name).relative_to(root).as_posix())
            if name.startswith("."):
                others.append(str(relative))
            elif name.casefold().endswith(_MASK_ENDING):
                continue
            elif name.casefold().endswith(IMAGE_SUFFIXES):
                photos.append(relative)
            elif not name.casefold().endswith(".txt"):
                others.append(str(relative))
    return sorted(photos), sorted(others)


def _endings(names: list[str]) -> str:
    counts = Counter(PurePosixPath(name).suffix.casefold() or "without ending" for name in names)
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(3)) or "no files"


def _read_classes(table: Path, folders: dict[str, None]) -> tuple[dict[str, CorpusClass], list[str]]:
    """Classes by folder, and the folders that classes.txt names but which hold no photo."""
    given: dict[str, CorpusClass] = {}
    lines = read_lines(table) if table.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        folder, tab, names = line.partition("\t")
        if not tab or folder in given:
            raise InputError(
                "E103",
                f"Cannot use {table}.",
                why=f"Line {number}: " + ("this folder stands there twice." if tab else "there is no tab."),
                fix="Write one line per folder: folder<TAB>name, synonym, ...",
            )
        entry = parse_names(names, f"line {number}", str(table))
        given[folder] = CorpusClass(folder, entry.names[0], entry.names[1:], entry.is_thing is not False)
    classes = {}
    for folder in folders:
        shown = folder.replace("_", " ").strip() or folder
        classes[folder] = given.get(folder) or CorpusClass(folder, shown, (), True)
    return classes, sorted(set(given) - set(folders))


def _captions(photo: Path) -> tuple[str, ...]:
    sidecar = photo.with_suffix(".txt")
    if sidecar.name == "classes.txt" or not sidecar.is_file():
        return ()
    return tuple(line.strip() for line in read_lines(sidecar) if line.strip())


def _read_mask(photo: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    sidecar = photo.with_name(photo.stem + _MASK_ENDING)
    if not sidecar.is_file():
        raise ImageError(
            "E116",
            f"{photo} has no mask.",
            why=f"{sidecar.name} does not exist.",
            fix="Draw the region into it (0 = outside), or use --use-boxes to take the whole photo.",
        )
    values = read_annotation(sidecar)
    check_size(str(photo), values.shape[:2], size)
    mask = np.asarray(values != 0) if values.ndim == 2 else (values != 0).any(axis=2)
    if not mask.any():
        raise misfit(str(photo), f"{sidecar.name} is 0 everywhere.")
    return mask
