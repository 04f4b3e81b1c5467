"""The build ledger: one immutable spill file per finished unit of work; resuming is listing the folder."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require
from retclip.core.segments import StoredSegment
from retclip.shards import durable
from retclip.shards.lock import held_lock
from retclip.shards.manifest import canonical_json, check_format

MAX_HEADER_BYTES = 1 << 26
_MAGIC = b"RETSPILL"
_HEAD_BYTES = len(_MAGIC) + 8
_DIGEST_BYTES = 32
_SUFFIX = ".spill"
_JOB = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DTYPES = ("<f2", "<f4")


class Ledger:
    """Results of a build that are not committed yet, by unit of work.

    Args:
        database: folder of an existing database.
        job: name of the build, letters, digits, dot, dash and underscore.

    Raises:
        DatabaseError: E306 when `database` is none.
        ValueError: for another job name.
    """

    def __init__(self, database: Path, job: str) -> None:
        require(_JOB.fullmatch(job) is not None, "job", "letters, digits, dot, dash, underscore", repr(job))
        check_format(database)
        self.folder = database / "jobs" / job
        durable.ensure_folder(self.folder)

    def has(self, unit_key: str) -> bool:
        """Whether the unit is done and its spill is whole; a damaged spill is removed."""
        return self._header(self._path(unit_key)) is not None

    def put(
        self,
        unit_key: str,
        segments: Sequence[StoredSegment],
        vectors: npt.NDArray[np.floating],
        report: Mapping[str, Any],
    ) -> None:
        """Record a finished unit, durably.

        Args:
            unit_key: any text that names the unit.
            segments: N segments, may be empty.
            vectors: (N, D) float16 or float32.
            report: plain JSON about the unit (counts, failures); `stored` are the ids of segments that were left out
                because the database has them.
        """
        from retclip.shards import tables  # Arrow takes 0.3 s to load; resuming a finished build does without

        dtype = vectors.dtype.newbyteorder("<").str
        require(dtype in _DTYPES, "vectors.dtype", "float16 or float32", vectors.dtype)
        require(vectors.ndim == 2 and len(vectors) == len(segments), "vectors", f"({len(segments)}, D)", vectors.shape)
        table = tables.stream_bytes(tables.from_segments(segments))
        header = canonical_json(
            {
                "key": unit_key,
                "rows": len(segments),
                "dim": vectors.shape[1],
                "dtype": dtype,
                "table": len(table),
                "report": dict(report),
            }
        )
        head = _MAGIC + len(header).to_bytes(8, "little") + header
        parts: list[bytes | memoryview] = [head, table, vectors.astype(dtype).tobytes()]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        durable.publish_file(self._path(unit_key), [*parts, digest.digest()])

    def report(self, unit_key: str) -> dict[str, Any]:
        """Report of a finished unit.

        Raises:
            KeyError: when the unit is not done or its spill is damaged.
        """
        header = self._header(self._path(unit_key))
        if header is None:
            raise KeyError(unit_key)
        report: dict[str, Any] = header["report"]
        return report

    def read(self, unit_key: str) -> tuple[list[StoredSegment], npt.NDArray[np.floating], dict[str, Any]]:
        """Segments, (N, D) vectors and report of a finished unit.

        Raises:
            KeyError: when the unit is not done or its spill is damaged.
        """
        from retclip.shards import tables

        path = self._path(unit_key)
        header = self._header(path)
        if header is None:
            raise KeyError(unit_key)
        data = memoryview(path.read_bytes())[:-_DIGEST_BYTES]
        start = _HEAD_BYTES + int.from_bytes(data[len(_MAGIC) : _HEAD_BYTES], "little")
        end = start + header["table"]
        table = tables.read_stream(data[start:end])
        vectors = np.frombuffer(data[end:], header["dtype"]).reshape(header["rows"], header["dim"])
        return tables.to_segments(table, table["label"].to_pylist()), vectors, header["report"]

    def units(self) -> list[str]:
        """Keys of all finished units, sorted; damaged spills are removed."""
        return sorted(header["key"] for _, header in self._spills())

    @contextmanager
    def running(self) -> Iterator[None]:
        """Keep other processes out of this job while the block runs; a job without units is removed at its end.

        Raises:
            DatabaseError: E304 when another process is in it.
        """
        durable.ensure_folder(self.folder)  # the run that was in it when this ledger was made may have removed it
        name = self.folder.parent.parent.stem
        with held_lock(self.folder / "LOCK", f"This build of database '{name}' is running already.", "build"):
            durable.sweep_staging(self.folder)  # of a build that was killed while it wrote
            yield
            if not any(self.folder.glob("*" + _SUFFIX)):
                durable.remove(self.folder)

    def forget(self, unit_keys: Iterable[str]) -> None:
        """Remove finished units; call it inside `running`."""
        for key in unit_keys:
            durable.remove(self._path(key))

    def _spills(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        for path in sorted(self.folder.glob("*" + _SUFFIX)):
            header = self._header(path)
            if header is not None:
                yield path, header

    def _path(self, unit_key: str) -> Path:
        return self.folder / (hashlib.sha256(unit_key.encode()).hexdigest()[:32] + _SUFFIX)

    def _header(self, path: Path) -> dict[str, Any] | None:
        """Header of a whole spill; None when there is none, or when it was damaged and is now removed."""
        if not path.is_file():
            return None
        header = _checked_header(path)
        if header is None or self._path(str(header["key"])) != path:
            durable.remove(path)
            return None
        return header


def unfinished_jobs(database: Path) -> list[tuple[str, int]]:
    """(job, finished units) of the builds of a database that were interrupted before their commit."""
    # Counted, not read: damaged spills are found by the build that resumes.
    jobs = ((folder.name, len(list(folder.glob("*" + _SUFFIX)))) for folder in job_folders(database))
    return [(name, units) for name, units in jobs if units]


def spills_with(
    database: Path, column: str, value: str
) -> Iterator[tuple[Ledger, str, list[StoredSegment], npt.NDArray[np.floating]]]:
    """(ledger, unit key, segments, vectors) of every finished unit with segments whose `column` is `value`."""
    for folder in job_folders(database):
        ledger = Ledger(database, folder.name)
        for key in ledger.units():
            segments, vectors, _ = ledger.read(key)
            places = [place for place, segment in enumerate(segments) if getattr(segment, column) == value]
            if places:
                yield ledger, key, [segments[place] for place in places], vectors[places]


def spills_without(database: Path, segment_ids: Collection[int]) -> Iterator[tuple[Ledger, str]]:
    """(ledger, unit key) of every finished unit that left out one of the segments because the database has it."""
    for folder in job_folders(database):
        ledger = Ledger(database, folder.name)
        for key in ledger.units():
            if not set(ledger.report(key).get("stored", ())).isdisjoint(segment_ids):
                yield ledger, key


def job_folders(database: Path) -> list[Path]:
    """Folders of the jobs of a database, by name; other programs leave things there too (`.DS_Store`)."""
    return [
        folder for folder in sorted((database / "jobs").glob("*")) if folder.is_dir() and _JOB.fullmatch(folder.name)
    ]


def _checked_header(path: Path) -> dict[str, Any] | None:
    """Header of a spill whose digest is right, else None."""
    size = path.stat().st_size - _DIGEST_BYTES
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
        length = int.from_bytes(head[len(_MAGIC) :], "little")
        if head[: len(_MAGIC)] != _MAGIC or length > min(MAX_HEADER_BYTES, size - _HEAD_BYTES):
            return None
        header = stream.read(length)
        digest.update(head + header)
        left = size - _HEAD_BYTES - length
        while left > 0:
            chunk = stream.read(min(left, 1 << 22))
            digest.update(chunk)
            left -= len(chunk)
        if stream.read() != digest.digest():
            return None
    parsed: dict[str, Any] = json.loads(header)
    return parsed
