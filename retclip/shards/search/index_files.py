"""`index.safetensors`: optional codes of one shard, in lists that never mix classes.

Rebuildable, never named by a manifest and never the only copy of a vector. It codes keys of one transform; a database
whose statistics changed needs it built again. `index.json` beside it, written last, says what it is and has its digest.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from retclip.core.errors import DatabaseError, ResourceError
from retclip.shards import durable
from retclip.shards.manifest import unreadable
from retclip.shards.shard_reader import ShardReader
from retclip.shards.transforms import KeyTransform

if TYPE_CHECKING:  # needs torch, `db info` does without
    from retclip.shards.search.coding import Codes, Coding

INDEX_FILE, NOTE_FILE = "index.safetensors", "index.json"
_OLD_FILE = "index.faiss"  # of an earlier kind, which was never used where it found too little
_TYPES = {"bytes": int, "rows": int, "sha256": str, "transform": str}


@dataclass(frozen=True)
class ShardCodes:
    """What an index holds.

    Attributes:
        coding: how the shard is coded; codes: (rows, ceil(c / 2)) its codes.
        numbers: (R,) int32 place in `coding.classes` of each class of the shard, in the order of `ShardReader.ranges`.
    """

    coding: Coding
    codes: Codes
    numbers: npt.NDArray[np.int32]


class IndexGone(Exception):
    """The index of a shard was removed, or built again for other statistics, since a search was planned with it."""


def require_faiss() -> None:
    """Raise E312 where FAISS is not installed."""
    if importlib.util.find_spec("faiss") is None:
        raise ResourceError(
            "E312",
            "An index needs FAISS, which is not installed.",
            why="It is an optional dependency; exact search does without.",
            fix="pip install 'retclip[cpu]' (or 'retclip[gpu]', never both)",
        )


def fingerprint(transform: KeyTransform) -> str:
    """Hex digest of a transform with its statistics: keys of two versions are comparable when it is equal."""
    digest = hashlib.sha256(transform.kind.encode())
    for part in (transform.offset, transform.scale, transform.matrix, transform.unit):
        digest.update(b"-" if part is None else part.tobytes())
    return digest.hexdigest()


def write_index(reader: ShardReader, transform: KeyTransform, coding: Coding) -> None:
    """Code a shard in memory (about 80 bytes a row) and publish the index durably.

    Only for the holder of the lock.

    Raises:
        ResourceError: E401 without room. DatabaseError: E310 where writing is refused.
    """
    numbers = np.searchsorted(coding.classes, list(reader.ranges)).astype(np.int32)
    content = save(vars(coding) | {"codes": coding.encode(reader, transform), "numbers": numbers})
    durable.sweep_staging(reader.folder)  # a build that was killed here
    remove_index(reader.folder)
    entry = durable.publish_file(reader.folder / INDEX_FILE, [content])
    said = {"bytes": entry.bytes, "rows": reader.rows, "sha256": entry.sha256, "transform": fingerprint(transform)}
    durable.publish_file(reader.folder / NOTE_FILE, [json.dumps(said, sort_keys=True).encode()])


def remove_index(shard: Path) -> None:
    """Take the index of a shard's folder away. Only for the holder of the lock."""
    for name in (NOTE_FILE, INDEX_FILE, _OLD_FILE):
        durable.remove(shard / name)


def read_index(reader: ShardReader, transform: KeyTransform) -> ShardCodes:
    """The index of a shard, whole, while others may replace it.

    Raises:
        IndexGone: there is none for this transform (any more).
        DatabaseError: E311 when it is damaged.
    """
    note = _note(reader)
    while note is not None and note["transform"] == fingerprint(transform):
        found = _load(reader, note, transform.width(reader.dim))
        # A writer takes the note away before it touches the index: what was read belongs to a note that is still there.
        before, note = note, _note(reader)
        if note == before:
            if isinstance(found, ShardCodes):
                return found
            raise _damaged(reader, found)
    raise IndexGone(reader.entry.id)


def _load(reader: ShardReader, note: dict[str, Any], width: int) -> ShardCodes | str:
    """The index that a note tells of, or in what they differ."""
    try:
        content = (reader.folder / INDEX_FILE).read_bytes()
        if len(content) != note["bytes"] or hashlib.sha256(content).hexdigest() != note["sha256"]:
            return f"Its size or SHA-256 is not what {NOTE_FILE} says."
        from retclip.shards.search.coding import Coding

        arrays = load(content)
        codes, numbers = arrays.pop("codes"), arrays.pop("numbers")
        found = ShardCodes(Coding(**arrays), codes, numbers)
    except (OSError, SafetensorError, LookupError, TypeError) as error:
        return str(error)
    return found if _fits(found, reader, width) else f"Its arrays do not suit {reader.rows} rows of {width} numbers."


def _fits(found: ShardCodes, reader: ShardReader, width: int) -> bool:
    """Whether arrays are as the page of the format says: FAISS would read and write beyond others."""
    coding, components = found.coding, found.coding.levels.shape[:1]
    count, stored = found.coding.classes.shape[:1], np.array(list(reader.ranges))
    shapes = (
        (coding.classes, np.int32, count),
        (coding.centres, np.float32, (*count, width)),
        (coding.directions, np.float32, (*components, width)),
        (coding.levels, np.float32, (*components, 16)),
        (coding.error, np.float64, (1,)),
        (found.codes, np.uint8, (reader.rows, *((number + 1) // 2 for number in components))),
        (found.numbers, np.int32, stored.shape),
    )
    if any(array.dtype != kind or array.shape != shape for array, kind, shape in shapes):
        return False
    numbers, floats = found.numbers, (coding.centres, coding.directions, coding.levels, coding.error)
    return bool(
        len(numbers)
        and 0 < coding.levels.size <= 16 * width
        and all(np.isfinite(array).all() for array in floats)
        and (np.diff(coding.classes) > 0).all()
        and ((numbers >= 0) & (numbers < len(coding.classes))).all()
        and np.ptp(stored - coding.classes[numbers]) == 0  # but that layers move all ids by one number
    )


def has_index(reader: ShardReader, transform: KeyTransform) -> bool:
    """Whether a shard has an index of this transform that can be used here."""
    if importlib.util.find_spec("faiss") is None:
        return False
    note = _note(reader)
    return note is not None and note["transform"] == fingerprint(transform)


def _note(reader: ShardReader) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads((reader.folder / NOTE_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(reader.folder / NOTE_FILE, error) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(reader, f"{NOTE_FILE} is not JSON: {error}.") from error
    if not isinstance(note, dict) or any(not isinstance(note.get(key), kind) for key, kind in _TYPES.items()):
        raise _damaged(reader, f"{NOTE_FILE} does not have the keys {', '.join(_TYPES)}.")
    if "classes" in note:  # beside an `index.faiss`
        return None
    return note


def _damaged(reader: ShardReader, why: str) -> DatabaseError:
    return DatabaseError(
        "E311",
        f"The search index of shard {reader.entry.id} is damaged.",
        why=f"{why} The vectors themselves are not concerned.",
        fix=f"Remove {INDEX_FILE} and {NOTE_FILE} from {reader.folder}: searches do without. To build it again: "
        f"retclip db index {reader.folder.parent.parent.stem}",
    )
