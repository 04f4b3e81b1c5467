"""Evaluation sets by name, each in the layout its makers publish."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

from retclip.core.errors import InputError
from retclip.core.vocabulary import Vocabulary
from retclip.corpora.annotations import read_lines
from retclip.evaluation.truth import EvaluationSet, PanopticFiles, read_panoptic, read_semantic
from retclip.vocabularies import load_vocabulary

IGNORED = 255
_ADE_FOLDERS = {"train": "training", "val": "validation"}
_CITY_ENDING = "_leftImg8bit.png"


def dataset_names() -> tuple[str, ...]:
    """Names that `open_evaluation_set` accepts."""
    return tuple(_READERS)


def open_evaluation_set(name: str, root: Path | None, split: str, classes: str | None = None) -> EvaluationSet:
    """Open an evaluation set.

    Args:
        name: one of `dataset_names()`.
        root: its folder; None takes `$RETCLIP_DATA/<name>`.
        split: `val`, `train`, ... in the set's own words or in these.
        classes: class list of a `semantic` set, in the order of its label values.

    Raises:
        InputError: E160 for an unknown name or place, E103 and E162 from the reader.
    """
    if name not in _READERS:
        near = difflib.get_close_matches(name, _READERS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        why = f"Sets are {', '.join(_READERS)}.{hint}"
        raise InputError("E160", f"Unknown evaluation set '{name}'.", why=why, fix="Pass one of them to --dataset.")
    base = os.environ.get("RETCLIP_DATA")
    place = root or (Path(base) / name if base else None)
    if place is None or not place.is_dir():
        what = f"No folder given for '{name}'." if place is None else f"{place} is not a folder."
        raise InputError("E160", what, why=f"'{name}' is read from there: {_LAYOUTS[name]}.", fix="Pass --root DIR.")
    return _READERS[name](place, split, classes)


def _coco(root: Path, split: str, classes: str | None) -> EvaluationSet:
    return _coco_layout("coco-panoptic", "coco", "@coco133", root, split)


def _playground(root: Path, split: str, classes: str | None) -> EvaluationSet:
    return _coco_layout("playground", "coco", "@playground", root, split)


def _coco_layout(name: str, source: str, vocabulary: str, root: Path, split: str) -> EvaluationSet:
    folder = root / "annotations"
    found = sorted(path.stem.removeprefix("panoptic_") for path in folder.glob("panoptic_*.json"))
    chosen = split if split in found else next((item for item in found if item.startswith(split)), None)
    if chosen is None:
        raise _absent(folder / f"panoptic_{split}.json", name, f"Splits there: {', '.join(found) or 'none'}.")
    photos = root / chosen if (root / chosen).is_dir() else root / "images" / chosen
    files = PanopticFiles(folder / f"panoptic_{chosen}.json", folder / f"panoptic_{chosen}", photos.joinpath)
    return read_panoptic(name, chosen, source, files, load_vocabulary(vocabulary))


def _ade20k(root: Path, split: str, classes: str | None) -> EvaluationSet:
    path = root / f"ade20k_panoptic_{split}.json"
    if not path.is_file():
        fix = f"retclip prepare --dataset ade20k-panoptic --root {root} --split {split}"
        why = "Panoptic ground truth is made from annotations/ and annotations_instance/."
        raise InputError("E162", f"{path} does not exist.", why=why, fix=fix)
    photos = root / "images" / _ADE_FOLDERS.get(split, split)
    files = PanopticFiles(path, root / f"ade20k_panoptic_{split}", photos.joinpath)
    return read_panoptic("ade20k-panoptic", split, "ade20k", files, load_vocabulary("@ade150"))


def _cityscapes(root: Path, split: str, classes: str | None) -> EvaluationSet:
    path = root / "gtFine" / f"cityscapes_panoptic_{split}.json"
    if not path.is_file():
        fix = f"retclip prepare --dataset cityscapes --root {root} --split {split}"
        raise InputError("E162", f"{path} does not exist.", why="It is made from *_gtFine_instanceIds.png.", fix=fix)

    def photo(file_name: str) -> Path:
        # The official JSON says `<id>_gtFine_leftImg8bit.png`, a file that does not exist.
        stem = file_name.removesuffix(_CITY_ENDING).removesuffix("_gtFine")
        return root / "leftImg8bit" / split / stem.split("_")[0] / f"{stem}{_CITY_ENDING}"

    files = PanopticFiles(path, root / "gtFine" / f"cityscapes_panoptic_{split}", photo)
    return read_panoptic("cityscapes", split, "cityscapes", files, load_vocabulary("@cityscapes19"))


def _own_panoptic(root: Path, split: str, classes: str | None) -> EvaluationSet:
    path = root / "panoptic.json"
    if not path.is_file():
        raise _absent(path, "panoptic", "")
    photos = root / "images" if (root / "images").is_dir() else root
    synonyms = load_vocabulary(classes) if classes else None
    return read_panoptic("panoptic", split, "", PanopticFiles(path, root / "panoptic", photos.joinpath), synonyms)


def _voc(root: Path, split: str, classes: str | None) -> EvaluationSet:
    base = root / "VOCdevkit" / "VOC2012" if (root / "VOCdevkit").is_dir() else root
    listed = base / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise _absent(listed, "pascal-voc", "")
    names = [Path(line.strip()).name for line in read_lines(listed) if line.strip()]
    pairs = [(base / "JPEGImages" / f"{n}.jpg", base / "SegmentationClass" / f"{n}.png") for n in names]
    vocabulary = load_vocabulary("@voc20")
    # PAS-20: background (0) is ignored like the boundary (255); values 1..20 are the ids of the list.
    columns = {category.id: column for column, category in enumerate(vocabulary)}
    return read_semantic("pascal-voc", split, "voc", pairs, vocabulary, columns)


def _semantic(root: Path, split: str, classes: str | None) -> EvaluationSet:
    return _label_folder("semantic", root, root / "images", root / "labels", classes)


def _context(root: Path, split: str, classes: str | None) -> EvaluationSet:
    part = _ADE_FOLDERS.get(split, split)
    return _label_folder("pascal-context", root, root / "images" / part, root / "annotations_ctx59" / part, classes)


def _label_folder(name: str, root: Path, photos: Path, labels: Path, classes: str | None) -> EvaluationSet:
    if classes is None:
        why = "Label values are places in a class list, which the folder does not hold."
        raise InputError("E162", f"No class list for {root}.", why=why, fix="Add --classes FILE, one class per line.")
    if not labels.is_dir():
        raise _absent(labels, name, "")
    vocabulary = load_vocabulary(classes)
    found = sorted(path for path in labels.iterdir() if path.suffix.casefold() in (".png", ".tif", ".tiff"))
    pairs = [(photos / f"{path.stem}.jpg", path) for path in found]
    columns = {column: column for column in range(min(len(vocabulary), IGNORED))}
    return read_semantic(name, labels.name, "pcontext" if name == "pascal-context" else "", pairs, vocabulary, columns)


def seen_list_of(name: str) -> str | None:
    """The list of training classes that the literature uses with a set, as `splits/<name>`; None without one."""
    return {"ade20k-panoptic": "ade150_coco_fcclip64", "playground": "playground_seen"}.get(name)


def load_seen_classes(text: str, vocabulary: Vocabulary) -> frozenset[int]:
    """Columns of the classes in a list (one first name or synonym per line, `#` starts a comment).

    Args:
        text: name of a list in the package, or a file.

    Raises:
        InputError: E164 for a missing file or a name that the vocabulary does not have.
    """
    packaged = Path(__file__).parent / "splits" / f"{Path(text).name}.txt"
    path = packaged if packaged.is_file() and not Path(text).is_file() else Path(text)
    if not path.is_file():
        raise InputError(
            "E164",
            f"There is no seen list '{text}'.",
            why=f"Neither {path} nor in the package.",
            fix="Check --seen-file.",
        )
    owners = {name.casefold(): column for column, c in reversed(list(enumerate(vocabulary))) for name in c.names[::-1]}
    owners |= {category.name.casefold(): column for column, category in enumerate(vocabulary)}
    columns = set()
    for number, line in enumerate(read_lines(path), start=1):
        name = line.partition("#")[0].strip().casefold()
        if name and name not in owners:
            why = f"Line {number}: '{name}' is no class of {vocabulary.name}."
            raise InputError("E164", f"Cannot use the seen list {path}.", why=why, fix="Write one class name per line.")
        columns |= {owners[name]} if name else set()
    return frozenset(columns)


def _absent(path: Path, name: str, why: str) -> InputError:
    layout = f"Layout of '{name}': {_LAYOUTS[name]}."
    return InputError("E162", f"{path} does not exist.", why=f"{why} {layout}".strip(), fix="Check --root and --split.")


_LAYOUTS = {
    "coco-panoptic": "annotations/panoptic_<split>.json, annotations/panoptic_<split>/*.png, <split>/*.jpg",
    "playground": "annotations/panoptic_<split>2017.json and folder, <split>2017/*.png",
    "ade20k-panoptic": "ade20k_panoptic_<split>.json, ade20k_panoptic_<split>/*.png, images/validation/*.jpg",
    "cityscapes": "gtFine/cityscapes_panoptic_<split>.json and folder, leftImg8bit/<split>/<city>/*.png",
    "panoptic": "panoptic.json, panoptic/*.png, images/*.jpg",
    "pascal-voc": "VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation/<split>.txt}",
    "pascal-context": "images/validation/*.jpg, annotations_ctx59/validation/*.png",
    "semantic": "images/*.jpg, labels/*.png with the place of the class in --classes, 255 = ignored",
}

_READERS: dict[str, Callable[[Path, str, str | None], EvaluationSet]] = {
    "coco-panoptic": _coco,
    "playground": _playground,
    "ade20k-panoptic": _ade20k,
    "cityscapes": _cityscapes,
    "panoptic": _own_panoptic,
    "pascal-voc": _voc,
    "pascal-context": _context,
    "semantic": _semantic,
}
