"""Tensors on disk with a digest of each, so that a changed byte is damage and never another result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from retclip.core.errors import require

_SEAL = "sha256:"

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
    notes = {key: value for key, value in found.items() if not key.startswith(_SEAL)}
    seals = {key.removeprefix(_SEAL): value for key, value in found.items() if key.startswith(_SEAL)}
    if seals or not unsealed:
        intact = set(seals) == names and all(seals[name] == _digest(name, arrays[name], notes) for name in arrays)
        require(intact, path.name, "as it was written", "changed")
    return arrays, notes


def _digest(name: str, array: np.ndarray[Any, Any], notes: Mapping[str, str]) -> str:
    head = json.dumps([name, str(array.dtype), array.shape, sorted(notes.items())])
    digest = hashlib.sha256(head.encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
