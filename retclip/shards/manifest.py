"""Manifests: one immutable file a version, checked byte by byte (docs/database-format.md, "Manifests")."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retclip.core.errors import DatabaseError, require
from retclip.core.identity import FeatureSpace
from retclip.shards.classes import ClassEntry, ClassTable
from retclip.shards.durable import FileEntry
from retclip.shards.transforms import check_kind

FORMAT = 1
FORMAT_BYTES = b'{"retclip_db": 1}\n'
MAX_MANIFEST_BYTES = 1 << 28
ROW_FILES = ("vectors.f16", "meta.parquet", "blobs.arrow", "classes.arrow", "ids.u64")
OPTIONAL_FILES = ("moments.i64",)
SHARD_FILE = "shard.json"
_PREFIX, _MIDDLE, _SUFFIX = b'{"body":', b',"sha256":"', b'"}\n'
_TAIL_BYTES = len(_MIDDLE) + 64 + len(_SUFFIX)
_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[0-9]{12}\.json")


def canonical_json(value: object) -> bytes:
    """The one JSON spelling of a value: sorted keys, no blanks, ASCII, finite numbers only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


@dataclass(frozen=True)
class Deletes:
    """The bitmap of a shard's dead rows: its id, how many rows are dead, and the file."""

    id: str
    rows: int
    file: FileEntry


@dataclass(frozen=True)
class ShardEntry:
    """A shard as a manifest names it; `sources` and `licenses` count all rows as written."""

    id: str
    rows: int
    files: Mapping[str, FileEntry]
    sources: Mapping[str, int]
    licenses: Mapping[str, int]
    deletes: Deletes | None = None

    def __post_init__(self) -> None:
        require(_ID.fullmatch(self.id) is not None, "shard id", "32 hex digits", self.id)
        require(self.rows > 0, "shard rows", "> 0", self.rows)
        missing = {*ROW_FILES, SHARD_FILE} - set(self.files)
        extra = set(self.files) - {*ROW_FILES, *OPTIONAL_FILES, SHARD_FILE}
        require(not missing and not extra, "shard files", f"{ROW_FILES}", sorted(self.files))
        dead = self.deletes
        require(dead is None or _ID.fullmatch(dead.id) is not None, "deletes id", "32 hex digits", dead)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        dead = None
        if self.deletes is not None:
            dead = {"id": self.deletes.id, "rows": self.deletes.rows, **asdict(self.deletes.file)}
        return {
            "id": self.id,
            "rows": self.rows,
            "files": {name: asdict(entry) for name, entry in self.files.items()},
            "sources": dict(self.sources),
            "licenses": dict(self.licenses),
            "deletes": dead,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ShardEntry:
        """Inverse of `to_json`."""
        dead = data["deletes"]
        deletes = Deletes(dead["id"], int(dead["rows"]), FileEntry(dead["bytes"], dead["sha256"])) if dead else None
        files = {name: FileEntry(**entry) for name, entry in data["files"].items()}
        return cls(data["id"], int(data["rows"]), files, data["sources"], data["licenses"], deletes)


@dataclass(frozen=True)
class Manifest:
    """One version.

    `counts` maps an effective class to (live rows, live rows that are things). `models` tells of every network that
    took part in the database so far: role, name, license and sha256, as plain text.
    """

    version: int
    parent: int
    created: str
    operation: str
    note: str
    program: str
    space: FeatureSpace
    preset: Mapping[str, Any]
    transform: str
    classes: ClassTable
    counts: Mapping[int, tuple[int, int]]
    shards: tuple[ShardEntry, ...]
    models: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_kind(self.transform)
        require(isinstance(self.space.dim, int), "FeatureSpace.dim", "a whole number", self.space.dim)
        require(len({entry.id for entry in self.shards}) == len(self.shards), "shards", "different ids", "one twice")

    @property
    def rows(self) -> int:
        """Live segments."""
        return sum(count for count, _ in self.counts.values())

    def to_bytes(self) -> bytes:
        """The bytes of the manifest file.

        Raises:
            DatabaseError: E322 when readers would refuse so many.
        """
        body = canonical_json(
            {
                "format": FORMAT,
                "version": self.version,
                "parent": self.parent,
                "created": self.created,
                "operation": self.operation,
                "note": self.note,
                "program": self.program,
                "space": self.space.to_json(),
                "preset": dict(self.preset),
                "transform": self.transform,
                "next_class_id": self.classes.next_id,
                "classes": [entry.to_json(*self.counts.get(entry.id, (0, 0))) for entry in self.classes],
                "shards": [entry.to_json() for entry in self.shards],
                "models": [dict(model) for model in self.models],
            }
        )
        data = _PREFIX + body + _MIDDLE + hashlib.sha256(body).hexdigest().encode() + _SUFFIX
        if len(data) > MAX_MANIFEST_BYTES:
            raise DatabaseError(
                "E322",
                f"Version {self.version} needs a manifest of {len(data):,} bytes, which nobody would open.",
                why=f"It lists {len(list(self.classes)):,} classes in {len(self.shards):,} shards; the limit is "
                f"{MAX_MANIFEST_BYTES:,} bytes. The last committed version is untouched.",
                fix="Compact the database, or keep some classes in another one and search both: --db ONE,TWO",
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Inverse of `to_bytes`. Raises errors of several kinds for anything else, see `read_manifest`."""
        body = data[len(_PREFIX) : -_TAIL_BYTES]
        digest = hashlib.sha256(body).hexdigest().encode()
        require(
            data == _PREFIX + body + _MIDDLE + digest + _SUFFIX, "manifest", "a body and its SHA-256", "other bytes"
        )
        fields = json.loads(body)
        require(fields["format"] == FORMAT, "manifest format", str(FORMAT), fields["format"])
        classes = ClassTable(map(ClassEntry.from_json, fields["classes"]), int(fields["next_class_id"]))
        return cls(
            version=int(fields["version"]),
            parent=int(fields["parent"]),
            created=str(fields["created"]),
            operation=str(fields["operation"]),
            note=str(fields["note"]),
            program=str(fields["program"]),
            space=FeatureSpace.from_json(fields["space"]),
            preset=fields["preset"],
            transform=str(fields["transform"]),
            classes=classes,
            counts={int(c["id"]): (int(c["count"]), int(c["things"])) for c in fields["classes"] if c["count"]},
            shards=tuple(map(ShardEntry.from_json, fields["shards"])),
            # Left out by the first writers of format 1.
            models=tuple(fields.get("models", ())),
        )


def manifest_path(database: Path, version: int) -> Path:
    """Where version `version` is written."""
    return database / "manifests" / f"{version:012d}.json"


def versions(database: Path) -> list[int]:
    """Numbers of all manifests that exist, valid or not, ascending."""
    return sorted(int(file.stem) for file in (database / "manifests").glob("*.json") if _NAME.fullmatch(file.name))


def spelled(numbers: list[int]) -> str:
    """Versions in words: `version 3`, `versions 1 to 3 and 7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"version{'s' if len(numbers) > 1 else ''} " + " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def read_manifest(database: Path, version: int) -> Manifest:
    """Read and check one version.

    Raises:
        DatabaseError: E306 when the version does not exist, E303 when its bytes are not a valid manifest, E320 when
            they cannot be read.
    """
    path = manifest_path(database, version)
    try:
        size = path.stat().st_size
        require(size <= MAX_MANIFEST_BYTES, "manifest size", f"<= {MAX_MANIFEST_BYTES} bytes", size)
        manifest = Manifest.from_bytes(path.read_bytes())
        require(manifest.version == version, "manifest version", str(version), manifest.version)
    except FileNotFoundError as error:
        known = versions(database)
        raise DatabaseError(
            "E306",
            f"Database '{database.stem}' has no version {version}.",
            why=f"It has {spelled(known)}." if known else "It has no version at all.",
            fix=f"See them with: retclip db log {database.stem}",
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DatabaseError(
            "E303",
            f"Manifest {path.name} of database '{database.stem}' is damaged.",
            why=str(error),
            fix=f"Restore the file from a backup; which versions are whole says: retclip db verify {database.stem}",
        ) from error
    return manifest


def current_manifest(database: Path) -> Manifest:
    """The highest valid version.

    Raises:
        DatabaseError: E302 when there is no manifest, E303 when none is valid.
    """
    damage: DatabaseError | None = None
    for version in reversed(versions(database)):
        try:
            return read_manifest(database, version)
        except DatabaseError as error:
            if error.code == "E320":
                raise  # an older version must not be taken for the newest because of a missing permission
            if error.code == "E306" and version not in versions(database):
                return current_manifest(database)  # it was removed since it was listed, so there is a newer one
            damage = damage or error
    if damage is not None:
        raise damage
    raise DatabaseError(
        "E302",
        f"Database '{database.stem}' has no version.",
        why="Its manifests folder is empty: it was never finished or was emptied.",
        fix="Remove the folder and build the database again.",
    )


def unreadable(path: Path, error: OSError) -> DatabaseError:
    """E320 for a file that is there, and that the system does not let us read."""
    return DatabaseError(
        "E320",
        f"{path} cannot be read.",
        why=error.strerror or str(error),
        fix="Check the permissions, the disk (system log) and the limit of open files.",
    )


def check_format(database: Path) -> None:
    """Refuse a folder that is no database of this format.

    Raises:
        DatabaseError: E306 no such database, E308 another format, E303 damaged FORMAT file, E320 unreadable.
    """
    try:
        data = (database / "FORMAT").read_bytes()[:1024]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatabaseError(
            "E306", f"{database} is not a database.", why="It has no FORMAT file.", fix="See: retclip db list"
        ) from error
    except OSError as error:
        raise unreadable(database / "FORMAT", error) from error
    if data == FORMAT_BYTES:
        return
    match = re.fullmatch(rb'\{"retclip_db": (\d{1,9})\}\n', data)
    if match:
        raise DatabaseError(
            "E308",
            f"Database '{database.stem}' has format {int(match[1])}; this program reads format {FORMAT}.",
            why="It was written by another version of retclip.",
            fix="Install a retclip that reads this format.",
        )
    raise DatabaseError(
        "E303",
        f"The FORMAT file of database '{database.stem}' is damaged.",
        why=f"Expected {FORMAT_BYTES!r}, got {data[:40]!r}.",
        fix="Restore it from a backup, or write those bytes if the manifests are whole.",
    )


def valid_manifests(database: Path) -> Iterator[Manifest]:
    """Every valid version of a database, oldest first."""
    for version in versions(database):
        try:
            yield read_manifest(database, version)
        except DatabaseError as error:
            if error.code not in ("E303", "E306"):  # damaged, or removed since it was listed
                raise
