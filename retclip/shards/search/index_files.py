"""`index.faiss`: an optional inverted file of one shard, whose lists never mix classes.

Rebuildable, never named by a manifest and never the only copy of a vector. It holds keys of one transform; a database
whose statistics changed needs it built again. `index.json` beside it, written last, says what it is and has its digest:
a FAISS file alone has no checksum.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError, ResourceError
from retclip.shards import durable
from retclip.shards.shard_reader import ShardReader
from retclip.shards.transforms import KeyTransform

INDEX_FILE, NOTE_FILE = "index.faiss", "index.json"
LIST_ROWS = 1_024
_TRAIN_ROWS = 64  # a list, as FAISS's own k-means wants at most
_SEED = 20_260
_KEY_ROWS = 1 << 14


@dataclass(frozen=True)
class ShardIndex:
    """An inverted file: `faiss` index, the stored class of each list (L,) int32, and list centres (L, r) float32."""

    faiss: Any
    classes: npt.NDArray[np.int32]
    centres: npt.NDArray[np.float32]


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


def write_index(reader: ShardReader, transform: KeyTransform) -> None:
    """Build the index of a shard in memory (one byte a number, about half of `vectors.f16`) and publish it durably.

    Only for the holder of the lock.

    Raises:
        ResourceError: E312 without FAISS, E401 without room. DatabaseError: E310 where writing is refused.
    """
    require_faiss()
    import faiss

    index, classes = _build(reader, transform)
    # write_index reports success on a full disk; our own writer checks every call and flushes.
    data = faiss.serialize_index(index)
    note, path = reader.folder / NOTE_FILE, reader.folder / INDEX_FILE
    durable.sweep_staging(reader.folder)  # a build that was killed here
    durable.remove(note)
    entry = durable.publish_file(path, [data.data])
    said = {"bytes": entry.bytes, "classes": classes.tolist(), "rows": reader.rows, "sha256": entry.sha256}
    durable.publish_file(note, [json.dumps(said | {"transform": fingerprint(transform)}, sort_keys=True).encode()])


def read_index(reader: ShardReader, transform: KeyTransform) -> ShardIndex:
    """The index of a shard, whole, while others may replace it.

    Raises:
        IndexGone: there is none for this transform (any more).
        DatabaseError: E311 when it is damaged. ResourceError: E312 without FAISS.
    """
    require_faiss()
    note = _note(reader)
    while note is not None and note["transform"] == fingerprint(transform):
        found = _load(reader, note)
        # A writer takes the note away before it touches the index: what was read belongs to a note that is still there.
        before, note = note, _note(reader)
        if note == before:
            if isinstance(found, ShardIndex):
                return found
            raise _damaged(reader, found)
    raise IndexGone(reader.entry.id)


def _load(reader: ShardReader, note: dict[str, Any]) -> ShardIndex | str:
    """The index that a note tells of, or in what they differ."""
    import faiss

    path = reader.folder / INDEX_FILE
    try:
        if path.stat().st_size != note["bytes"] or durable.file_sha256(path) != note["sha256"]:
            return f"Its size or SHA-256 is not what {NOTE_FILE} says."
        index: Any = faiss.read_index(str(path))
    except (OSError, RuntimeError) as error:
        return str(error)
    classes = np.array(note["classes"], np.int32)
    if index.ntotal != reader.rows or index.nlist != len(classes):
        return f"It has {index.ntotal} rows in {index.nlist} lists."
    return ShardIndex(index, classes, index.quantizer.reconstruct_n(0, index.nlist))


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
    except ValueError as error:
        raise _damaged(reader, f"{NOTE_FILE} is not JSON: {error}.") from error
    types = {"bytes": int, "classes": list, "rows": int, "sha256": str, "transform": str}
    if not isinstance(note, dict) or any(not isinstance(note.get(key), kind) for key, kind in types.items()):
        raise _damaged(reader, f"{NOTE_FILE} does not have the keys {', '.join(types)}.")
    return note


def _damaged(reader: ShardReader, why: str) -> DatabaseError:
    return DatabaseError(
        "E311",
        f"The search index of shard {reader.entry.id} is damaged.",
        why=f"{why} The vectors themselves are not concerned.",
        fix=f"Remove {INDEX_FILE} and {NOTE_FILE} from {reader.folder}: searches do without. To build it again: "
        f"retclip db index {reader.folder.parent.parent.stem}",
    )


def _keys(reader: ShardReader, transform: KeyTransform, begin: int, end: int) -> npt.NDArray[np.float32]:
    """(end - begin, r) keys of rows, made in pieces: their float64 would take several times as much."""
    cuts = [*range(begin, end, _KEY_ROWS), end]
    return np.concatenate([transform.keys(reader.vectors[a:b]).astype(np.float32) for a, b in pairwise(cuts)])


def _build(reader: ShardReader, transform: KeyTransform) -> tuple[Any, npt.NDArray[np.int32]]:
    """A scalar-quantised inverted file, one list for about LIST_ROWS rows of a class, and the class of each list."""
    import faiss

    ranges = sorted(reader.ranges.items(), key=lambda item: item[1])
    centres = [_centres(_keys(reader, transform, *span)) for _, span in ranges]
    first = np.concatenate([[0], np.cumsum([len(part) for part in centres])])
    width = centres[0].shape[1]
    quantizer = faiss.IndexFlatIP(width)
    quantizer.add(np.concatenate(centres))
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, width, quantizer.ntotal, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
    )
    step = max(reader.rows // (_TRAIN_ROWS * 1_024), 1)  # 65,536 rows say enough about the range of each component
    index.train(transform.keys(reader.vectors[::step]).astype(np.float32))
    for number, (_, (begin, end)) in enumerate(ranges):
        keys = _keys(reader, transform, begin, end)
        lists = (keys @ centres[number].T).argmax(axis=1) + first[number]
        ids = np.arange(begin, end)
        index.add_core(len(keys), faiss.swig_ptr(keys), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    return index, np.repeat(np.array([c for c, _ in ranges], np.int32), np.diff(first))


def _centres(keys: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(l, r) unit centres of the lists of one class."""
    import faiss

    lists = max(1, round(len(keys) / LIST_ROWS))
    if lists == 1:
        mean = keys.mean(axis=0, keepdims=True)
        length = np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        unit: npt.NDArray[np.float32] = mean / length
        return unit
    means: Any = faiss.Kmeans(keys.shape[1], lists, seed=_SEED, spherical=True, max_points_per_centroid=_TRAIN_ROWS)
    means.train(keys)
    centres: npt.NDArray[np.float32] = means.centroids
    return centres
