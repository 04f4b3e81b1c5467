"""Opening datasets of the library `datasets`: from disk, or by their name from the hub."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from retclip.core.errors import InputError, translated

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILES = {
    ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json",
}  # fmt: skip
_SPLIT_SPELLINGS = {"val": "validation", "valid": "validation", "validation": "val", "dev": "validation"}
_PATIENCE = 1.5  # seconds
_OFFLINE = ("RETCLIP_OFFLINE", "HF_HUB_OFFLINE")


@dataclass(frozen=True)
class OpenedDataset:
    """rows: one split, of a type of the library; root: folder that its files lie in, None for the hub; split: its name.

    length: number of rows if known without reading them.
    """

    rows: Any
    root: Path | None
    split: str
    length: int | None


def open_dataset(place: Path, split: str | None) -> OpenedDataset:
    """Open one split as a stream; no code of the dataset is ever run.

    Args:
        place: a file (Parquet, Arrow, CSV, JSON), a folder of such files or of pictures, a folder that `save_to_disk`
            wrote, or the name of a dataset on the hub.
        split: its name; None takes train, or else the only one.

    Raises:
        InputError: E103 if there is no such split, E127 if the library is not installed, E128 if the dataset cannot
            be opened or the hub cannot be reached.
    """
    if importlib.util.find_spec("datasets") is None:
        raise InputError(
            "E127",
            "The library 'datasets' is not installed.",
            why="The source 'hf' reads with it.",
            fix='pip install "retclip[hf]"',
        )
    if not place.exists():
        _require_hub(place)
    # The library and its file systems raise any type on damaged or unknown data.
    with translated(lambda error: unreadable(str(place), error)):
        splits = _load(place)
    name = _choose(place, list(splits), split)
    rows = splits[name]
    root = (place if place.is_dir() else place.parent).resolve() if place.exists() else None
    return OpenedDataset(rows, root, name, _length(rows, name))


def unreadable(name: str, error: Exception) -> InputError:
    """Error E128 for what the library could not read."""
    text = str(error).strip().splitlines() or [""]
    return InputError(
        "E128",
        f"Cannot read the dataset {name}.",
        why=f"{type(error).__name__}: {text[0]}",
        fix="Check --root; datasets with a loading script must be converted to Parquet first.",
    )


def _load(place: Path) -> dict[str, Any]:
    import datasets

    if place.is_file():
        kind = _FILES.get(place.suffix.casefold())
        if kind is None:
            raise ValueError(f"files end in {', '.join(_FILES)}")
        options = {"sep": "\t"} if place.suffix.casefold() == ".tsv" else {}
        return dict(datasets.load_dataset(kind, data_files=str(place), streaming=True, **options))
    if (place / "dataset_dict.json").is_file():
        return dict(datasets.load_from_disk(str(place)))
    if (place / "state.json").is_file():
        rows = datasets.load_from_disk(str(place))
        return {str(rows.split or "train"): rows}
    return dict(datasets.load_dataset(str(place) if place.exists() else place.as_posix(), streaming=True))


def _choose(place: Path, splits: list[str], split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    for name in (split or "train", _SPLIT_SPELLINGS.get(split or "", "")):
        if name in splits:
            return name
    raise InputError(
        "E103",
        f"No split '{split or 'train'}' in {place}.",
        why=f"There are {', '.join(splits)}.",
        fix="Name one of them with --split.",
    )


def _length(rows: Any, split: str) -> int | None:
    if hasattr(rows, "__len__"):
        return len(rows)
    known = (rows.info.splits or {}).get(split)
    return int(known.num_examples) if known is not None and known.num_examples else None


def _require_hub(place: Path) -> None:
    """Stop at once where the hub is out of reach; the library itself would try for minutes."""
    name = place.as_posix()
    is_name = _HUB_NAME.fullmatch(name) is not None
    wishes = (name for name in _OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"))
    offline = next(wishes, None)
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    port = address.port or (80 if address.scheme == "http" else 443)
    if is_name and offline is None and _answers(address.hostname or "", port):
        return
    why = f"{offline} is set." if offline else f"{address.hostname} does not answer."
    raise InputError(
        "E128",
        f"Cannot read the dataset {name}.",
        why=f"It is not on this disk. {why}" if is_name else "It is not on this disk, and no name on the hub either.",
        fix="Download the dataset on a connected machine, copy it, and pass its folder as --root.",
    )


def _answers(host: str, port: int) -> bool:
    finished, reached = threading.Event(), threading.Event()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((host, port), timeout=_PATIENCE):
            reached.set()
        finished.set()

    # In a thread, because looking up a name knows no time limit.
    threading.Thread(target=connect, daemon=True).start()
    finished.wait(_PATIENCE)
    return reached.is_set()
