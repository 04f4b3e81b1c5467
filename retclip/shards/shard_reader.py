"""Reads one immutable shard; files are mapped or loaded on first use and checked then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError
from retclip.core.threads import cached_property
from retclip.shards.durable import file_sha256
from retclip.shards.manifest import ShardEntry, unreadable
from retclip.shards.moments import Moments

if TYPE_CHECKING:
    from retclip.shards.tables import RowTables


def unusable(database: Path, name: str, error: OSError) -> DatabaseError:
    """E303 for a file that is not there, E320 for one that the system does not let us read."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return damaged(database, name, str(error))
    return unreadable(database / name, error)


def damaged(database: Path, name: str, why: str) -> DatabaseError:
    """E303 for one file; `name` is its path inside the database."""
    return DatabaseError(
        "E303",
        f"Database '{database.stem}': {name} is damaged or missing.",
        why=why,
        fix=f"Restore the file from a backup; which versions do without it says: retclip db verify {database.stem}",
    )


class ShardReader:
    """One shard of `rows` rows. `folder` is where its files are."""

    def __init__(self, folder: Path, entry: ShardEntry, dim: int) -> None:
        self.folder = folder
        self.entry = entry
        self.rows = entry.rows
        self.dim = dim

    def _damaged(self, name: str, why: str) -> DatabaseError:
        return damaged(self.folder.parent.parent, f"shards/{self.entry.id}/{name}", why)

    def _unusable(self, name: str, error: OSError) -> DatabaseError:
        return unusable(self.folder.parent.parent, f"shards/{self.entry.id}/{name}", error)

    def check_sizes(self) -> None:
        """Refuse a shard with a file that is missing or has another size than the manifest says."""
        for name, file in self.entry.files.items():
            try:
                size = (self.folder / name).stat().st_size
            except OSError as error:
                raise self._unusable(name, error) from error
            if size != file.bytes:
                raise self._damaged(name, f"It has {size} bytes instead of {file.bytes}.")
        expected = self.rows * self.dim * 2
        if self.entry.files["vectors.f16"].bytes != expected:
            raise self._damaged("vectors.f16", f"{self.rows} rows of {self.dim} need {expected} bytes.")

    def checked(self, name: str) -> Path:
        """Path of a file after its digest was compared with the manifest's."""
        path = self.folder / name
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise self._unusable(name, error) from error
        if digest != self.entry.files[name].sha256:
            raise self._damaged(name, f"Its SHA-256 is {digest}, the manifest says another.")
        return path

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """(rows, D) mapped, read-only."""
        try:
            return np.memmap(self.folder / "vectors.f16", "<f2", "r", shape=(self.rows, self.dim))
        except OSError as error:
            raise self._unusable("vectors.f16", error) from error

    @cached_property
    def _classes(self) -> tuple[dict[str, npt.NDArray[Any]], list[bytes]]:
        from retclip.shards import tables  # Arrow takes 0.3 s to load; `db info` does without

        return tables.read_classes(self.checked("classes.arrow"))

    @property
    def classes(self) -> dict[str, npt.NDArray[Any]]:
        """Columns class_id, begin, count, things (C,) and mean (C, D) of classes.arrow."""
        return self._classes[0]

    def digests(self) -> dict[int, int]:
        """Sum of row digests per stored class."""
        ids = self.classes["class_id"].tolist()
        return {c: int.from_bytes(d, "little") for c, d in zip(ids, self._classes[1], strict=True)}

    @cached_property
    def ranges(self) -> dict[int, tuple[int, int]]:
        """First and one-past-last row of each stored class."""
        columns = self.classes
        triples = zip(columns["class_id"].tolist(), columns["begin"].tolist(), columns["count"].tolist(), strict=True)
        return {class_id: (begin, begin + count) for class_id, begin, count in triples}

    @cached_property
    def tables(self) -> RowTables:
        """Rows of meta.parquet and blobs.arrow."""
        from retclip.shards.tables import RowTables

        return RowTables(self.checked("meta.parquet"), self.checked("blobs.arrow"))

    @cached_property
    def _ids(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        data = np.memmap(self.checked("ids.u64"), np.uint8, "r", shape=(self.rows * 12,))
        return data[: 8 * self.rows].view("<u8"), data[8 * self.rows :].view("<u4")

    @property
    def sorted_ids(self) -> npt.NDArray[np.uint64]:
        """(rows,) segment ids, ascending."""
        return self._ids[0]

    @cached_property
    def row_ids(self) -> npt.NDArray[np.uint64]:
        """(rows,) segment id of each row."""
        ids, rows = self._ids
        by_row = np.empty(self.rows, np.uint64)
        by_row[rows] = ids
        return by_row

    def locate(self, segment_ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """(n,) row of each id, -1 where the shard does not have it."""
        ids, rows = self._ids
        place = np.minimum(np.searchsorted(ids, segment_ids), self.rows - 1)
        return np.where(ids[place] == segment_ids, rows[place].astype(np.int64), -1)

    def row_classes(self) -> npt.NDArray[np.int32]:
        """(rows,) stored class of each row."""
        return np.repeat(self.classes["class_id"], self.classes["count"])

    def moments(self) -> Moments:
        """Moments of all rows, dead ones included."""
        if "moments.i64" not in self.entry.files:
            return Moments.of(self.vectors)
        return Moments.from_bytes(self.checked("moments.i64").read_bytes(), self.rows, self.dim)
