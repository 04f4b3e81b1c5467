"""Corpora by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retclip.core.errors import InputError
from retclip.corpora.ade20k import Ade20kCorpus
from retclip.corpora.coco import CocoCorpus
from retclip.corpora.coco_instances import CocoInstances
from retclip.corpora.coco_listing import matching_splits
from retclip.corpora.folder import FolderCorpus
from retclip.corpora.hf import HfCorpus
from retclip.corpora.openimages import OpenImagesCorpus
from retclip.corpora.table import TableColumns, TableCorpus
from retclip.corpora.webdataset import WebdatasetCorpus
from retclip.corpora.webdataset_shards import is_pattern
from retclip.ports.corpora import Corpus, CorpusClass

# Sources people ask for that have no reader; the text says what can be used today.
_UNREAD = {
    "cityscapes": "Write its regions as boxes into a table and use --source table.",
    "voc": "Write its boxes into a table and use --source table.",
    "pcontext": "Write its labels into a table and use --source table.",
    "ade20k-full": "Use --source ade20k with the ADEChallengeData2016 release (150 classes).",
}

# What a folder of a corpus is known by: its name for people, and files that only it has.
_MARKS = {
    "ade20k": ("ADEChallengeData2016", ("objectInfo150.txt",)),
    "coco": ("COCO", ("annotations/panoptic_*.json", "annotations/instances_*.json")),
    "openimages": (
        "Open Images",
        ("*-imagelabels*.csv", "annotations/*-annotations-bbox.csv", "*/metadata/classes.csv"),
    ),
}
# Tables and datasets may lie in any folder.
_ANYWHERE = ("table", "hf")
# Sources that may be a single file.
_FILES = ("table", "webdataset", "hf")


@dataclass(frozen=True)
class CorpusOptions:
    """What some readers need beside a place and a split.

    Attributes:
        table: the table file when the root of a `table` corpus is a folder with several.
        columns: which columns of a table or an `hf` dataset to use.
        comments: skip lines of a CSV or TSV file that start with `#`.
        flat: class of all photos of a `folder` corpus without class folders.
        class_names: names of numbered classes of `webdataset` and `hf`, in the order of their numbers.
        machine_labels: labels of `openimages` by a machine count from this confidence on; None takes none.
        image_ids: list of the photos of `openimages` to take; None takes all.
    """

    table: Path | None = None
    columns: TableColumns = field(default_factory=TableColumns)
    comments: bool = False
    flat: CorpusClass | None = None
    class_names: tuple[str, ...] = ()
    machine_labels: float | None = None
    image_ids: Path | None = None


def corpus_names() -> tuple[str, ...]:
    """Names that `open_corpus` accepts."""
    return tuple(_READERS)


def is_source(name: str) -> bool:
    """Whether `name` is a kind of corpus, with or without a reader in this version."""
    return name in _READERS or name in _UNREAD


def open_corpus(name: str, root: Path | None, split: str | None, options: CorpusOptions | None = None) -> Corpus:
    """Open a corpus by name.

    Args:
        name: one of `corpus_names()`.
        root: its folder; for some sources a file, a pattern of archives (`webdataset`) or a name on the hub (`hf`);
            None takes `$RETCLIP_DATA/<name>`.
        split: part of the corpus; None takes the reader's default.
        options: settings of single readers.

    Raises:
        InputError: E115 for a name without reader, E118 if the place is unknown or absent, E102 if the folder holds
            another corpus, E101, E103, E105, E106, E117 or E127 to E129 from the reader.
    """
    if name not in _READERS:
        raise _unknown(name)
    place = _locate(name, root)
    _refuse_other(name, place)
    return _READERS[name](place, split, options or CorpusOptions())


def _open_coco(place: Path, split: str | None, options: CorpusOptions) -> Corpus:
    """Panoptic annotations where the split has them, else instances or captions."""
    annotations = place / "annotations"
    has_panoptic = bool(matching_splits(annotations, ("panoptic",), split))
    has_others = bool(matching_splits(annotations, ("instances", "captions"), split))
    return CocoInstances(place, split) if has_others and not has_panoptic else CocoCorpus(place, split)


def _open_table(place: Path, split: str | None, options: CorpusOptions) -> Corpus:
    return TableCorpus(place, split, options.table, options.columns, options.comments)


def _open_images(place: Path, split: str | None, options: CorpusOptions) -> Corpus:
    return OpenImagesCorpus(place, split, options.machine_labels, options.image_ids)


_READERS: dict[str, Callable[[Path, str | None, CorpusOptions], Corpus]] = {
    "coco": _open_coco,
    "ade20k": lambda place, split, options: Ade20kCorpus(place, split),
    "folder": lambda place, split, options: FolderCorpus(place, split, options.flat),
    "table": _open_table,
    "openimages": _open_images,
    "webdataset": lambda place, split, options: WebdatasetCorpus(place, split, options.class_names),
    "hf": lambda place, split, options: HfCorpus(place, split, options.columns, options.class_names),
}


def _unknown(name: str) -> InputError:
    if name in _UNREAD:
        return InputError("E115", f"This version cannot read '{name}'.", why="It has no reader yet.", fix=_UNREAD[name])
    near = difflib.get_close_matches(name.casefold(), [*_READERS, *_UNREAD], n=1)
    return InputError(
        "E115",
        f"Unknown source '{name}'" + (f" (did you mean '{near[0]}'?)." if near else "."),
        why=f"Sources are {', '.join(_READERS)}.",
        fix="Pass one of them to --source.",
    )


def _locate(name: str, root: Path | None) -> Path:
    if root is None:
        base = os.environ.get("RETCLIP_DATA", "")
        if not base:
            raise InputError(
                "E118",
                f"No folder given for '{name}'.",
                why="RETCLIP_DATA is not set, so there is no default place.",
                fix=f"Pass --root DIR, or set RETCLIP_DATA to the folder that holds {name}/.",
            )
        root = Path(base) / name
    is_other = (name in _FILES and root.is_file()) or (name == "webdataset" and is_pattern(root))
    # A name on the hub looks like a path that does not exist; its reader says what is wrong with others.
    if root.is_dir() or is_other or (name == "hf" and not root.exists()):
        return root
    raise InputError(
        "E118",
        f"{root} is not a folder." if root.exists() else f"{root} does not exist.",
        why=f"'{name}' is read from there.",
        fix="Check --root (default: $RETCLIP_DATA/<source>).",
    )


def _refuse_other(name: str, root: Path) -> None:
    """Stop when a folder holds the marks of another corpus and none of its own."""
    if name in _ANYWHERE or (name in _MARKS and _mark(name, root)):
        return
    for source, (title, _) in _MARKS.items():
        found = _mark(source, root)
        if found is not None:
            raise InputError(
                "E102",
                f"{root} looks like {title}, not {name}.",
                why=f"Found {found.relative_to(root)}.",
                fix=f"Use --source {source}.",
            )


def _mark(source: str, root: Path) -> Path | None:
    return next((found for mark in _MARKS[source][1] for found in root.glob(mark)), None)
