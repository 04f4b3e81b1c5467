"""`index.safetensors`: optional codes of one shard, in lists that never mix classes.

Rebuildable, never named by a manifest and never the only copy of a vector. It codes keys of one transform, whose
fingerprint stands in its head; a database whose statistics changed needs it built again.
"""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from retclip.core.errors import DatabaseError, ResourceError
from retclip.core.sealed import Arrays, read_notes, seal, unseal
from retclip.shards import durable
from retclip.shards.manifest import unreadable
from retclip.shards.shard_reader import ShardReader
from retclip.shards.transforms import KeyTransform

if TYPE_CHECKING:  # needs torch, `db info` does without
    from retclip.shards.search.coding import Codes, Coding

INDEX_FILE = "index.safetensors"
_OLD_FILES = ("index.faiss", "index.json")  # of an earlier kind, which found too little to be used
_TRANSFORM = "transform"


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
    arrays = {**vars(coding), "codes": coding.encode(reader, transform), "numbers": numbers}
    remove_index(reader.folder)
    durable.publish_file(reader.folder / INDEX_FILE, [seal(arrays, {_TRANSFORM: fingerprint(transform)})])


def remove_index(shard: Path) -> None:
    """Take the index of a shard's folder away, and what a builder that was killed left. For the holder of the lock."""
    durable.sweep_staging(shard)
    for name in (INDEX_FILE, *_OLD_FILES):
        durable.remove(shard / name)


def read_index(reader: ShardReader, transform: KeyTransform) -> ShardCodes:
    """The index of a shard, whole, while others may replace it.

    Raises:
        IndexGone: there is none for this transform (any more).
        DatabaseError: E311 when it is damaged, E320 when it cannot be read.
    """
    found, of = _read(reader)
    if of != fingerprint(transform):
        raise IndexGone(reader.entry.id)
    if found.coding.centres.shape[1] != transform.width(reader.dim):
        raise _damaged(reader, "Its keys are not as long as those of its transform.")
    return found


def check_index(reader: ShardReader) -> None:
    """Raise DatabaseError E311 or E320 unless the index of a shard, where there is one, is whole."""
    with suppress(IndexGone):
        _read(reader)


def has_index(reader: ShardReader, transform: KeyTransform) -> bool:
    """Whether a shard has an index of this transform that can be used here."""
    if importlib.util.find_spec("faiss") is None:
        return False
    try:
        return read_notes(reader.folder / INDEX_FILE).get(_TRANSFORM) == fingerprint(transform)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(reader.folder / INDEX_FILE, error) from error
    except ValueError as error:
        raise _damaged(reader, f"{error}.") from error


def _read(reader: ShardReader) -> tuple[ShardCodes, str | None]:
    """What an index holds, and the fingerprint of its transform."""
    try:
        arrays, notes = unseal((reader.folder / INDEX_FILE).read_bytes())
        found = _codes(arrays)
    except FileNotFoundError as error:
        raise IndexGone(reader.entry.id) from error
    except OSError as error:
        raise unreadable(reader.folder / INDEX_FILE, error) from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise _damaged(reader, f"{error}.") from error
    if not _fits(found, reader):
        raise _damaged(reader, f"Its arrays do not suit {reader.rows} rows of {len(reader.ranges)} classes.")
    return found, notes.get(_TRANSFORM)


def _codes(arrays: Arrays) -> ShardCodes:
    """Raises TypeError where arrays are missing, or there are others."""
    from retclip.shards.search.coding import Coding

    own = {name: array for name, array in arrays.items() if name in ("codes", "numbers")}
    coding = Coding(**{name: array for name, array in arrays.items() if name not in own})
    return ShardCodes(coding, **own)


def _fits(found: ShardCodes, reader: ShardReader) -> bool:
    """Whether arrays are as the page of the format says: FAISS would read and write beyond others."""
    coding, components, width = found.coding, found.coding.levels.shape[:1], found.coding.centres.shape[1:]
    count, stored = found.coding.classes.shape[:1], np.array(list(reader.ranges))
    shapes = (
        (coding.classes, np.int32, count),
        (coding.centres, np.float32, (*count, *width)),
        (coding.directions, np.float32, (*components, *width)),
        (coding.levels, np.float32, (*components, 16)),
        (coding.error, np.float64, (1,)),
        (found.codes, np.uint8, (reader.rows, *((number + 1) // 2 for number in components))),
        (found.numbers, np.int32, stored.shape),
    )
    if len(width) != 1 or any(array.dtype != kind or array.shape != shape for array, kind, shape in shapes):
        return False
    numbers, floats = found.numbers, (coding.centres, coding.directions, coding.levels, coding.error)
    return bool(
        len(numbers)
        and 0 < len(coding.levels) <= coding.directions.shape[1]
        and all(np.isfinite(array).all() for array in floats)
        and (np.diff(coding.classes) > 0).all()
        and ((numbers >= 0) & (numbers < len(coding.classes))).all()
        and np.ptp(stored - coding.classes[numbers]) == 0  # but that layers move all ids by one number
    )


def _damaged(reader: ShardReader, why: str) -> DatabaseError:
    return DatabaseError(
        "E311",
        f"The search index of shard {reader.entry.id} is damaged.",
        why=f"{why} The vectors themselves are not concerned.",
        fix=f"Remove {INDEX_FILE} from {reader.folder}: searches do without. To build it again: "
        f"retclip db index {reader.folder.parent.parent.stem}",
    )
