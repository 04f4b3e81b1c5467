"""Tensors on disk with a digest of each, so that a changed byte is damage and never another result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load, save

from retclip.core.errors import require

_SEAL = "sha256:"
_HEAD_BYTES = 1 << 20  # more than any head that `seal` writes

Arrays = dict[str, np.ndarray[Any, Any]]


def seal(arrays: Mapping[str, np.ndarray[Any, Any]], notes: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of arrays and notes; the digest of every array stands among the notes."""
    notes, whole = notes or {}, {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(whole, {**notes, **{_SEAL + name: _digest(name, array, notes) for name, array in whole.items()}})


def read_sealed(path: Path, without: Collection[str] = (), unsealed: bool = False) -> tuple[Arrays, Mapping[str, str]]:
    """Arrays and notes of a file; only what is read is checked, as pixels are large.

    Args:
        without: arrays to leave out.
        unsealed: read files without any digest too.

    Raises:
        OSError, SafetensorError: for a file that cannot be read.
        ValueError: for one that is not as it was written.
    """
    with safe_open(path, framework="numpy") as file:
        found, names = file.metadata() or {}, set(file.keys())
        arrays = {name: file.get_tensor(name) for name in names if name not in without}
    if not unsealed or any(key.startswith(_SEAL) for key in found):
        _check(arrays, names, found)
    return arrays, _notes(found)


def unseal(data: bytes) -> tuple[Arrays, Mapping[str, str]]:
    """Arrays and notes of a whole file that was read at once, so that nobody can have replaced it meanwhile.

    Raises:
        SafetensorError, ValueError: for bytes that are not as they were written.
    """
    arrays = load(data)
    found = _head(data[8 : 8 + int.from_bytes(data[:8], "little")])
    _check(arrays, set(arrays), found)
    return arrays, _notes(found)


def read_notes(path: Path) -> Mapping[str, str]:
    """Notes of a file, unchecked, of which only the head is read.

    Raises:
        OSError: for a file that cannot be read. ValueError: for one that is not as it was written.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        require(size <= _HEAD_BYTES, path.name, f"a head of at most {_HEAD_BYTES} bytes", size)
        return _notes(_head(file.read(size)))


def _head(text: bytes) -> Mapping[str, str]:
    try:
        found = json.loads(text)["__metadata__"]
    except (RecursionError, LookupError, TypeError) as error:
        raise ValueError(f"not the head of a sealed file: {error}") from error
    require(isinstance(found, dict), "notes of a sealed file", "a table", type(found).__name__)
    return {str(key): str(value) for key, value in found.items()}


def _notes(found: Mapping[str, str]) -> Mapping[str, str]:
    return {key: value for key, value in found.items() if not key.startswith(_SEAL)}


def _check(arrays: Arrays, names: Collection[str], found: Mapping[str, str]) -> None:
    """Raise ValueError unless every name has a seal, and that of each array fits."""
    notes = _notes(found)
    seals = {key.removeprefix(_SEAL): value for key, value in found.items() if key.startswith(_SEAL)}
    intact = set(seals) == set(names) and all(seals[name] == _digest(name, arrays[name], notes) for name in arrays)
    require(intact, "sealed file", "as it was written", "changed")


def _digest(name: str, array: np.ndarray[Any, Any], notes: Mapping[str, str]) -> str:
    head = json.dumps([name, str(array.dtype), array.shape, sorted(notes.items())])
    digest = hashlib.sha256(head.encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
