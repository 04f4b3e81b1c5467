"""Checks a database and lists what is wrong with it; damage never raises here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retclip.core.errors import DatabaseError
from retclip.shards.database import Database
from retclip.shards.durable import file_sha256
from retclip.shards.leases import Lease
from retclip.shards.manifest import (
    FORMAT_BYTES,
    Manifest,
    ShardEntry,
    manifest_path,
    read_manifest,
    valid_manifests,
    versions,
)
from retclip.shards.shard_reader import ShardReader
from retclip.shards.snapshot import LiveShard, Snapshot, read_deletes
from retclip.shards.sweep import named_files


@dataclass(frozen=True)
class Problem:
    """One finding: error code, path of the file inside the database, what is wrong."""

    code: str
    file: str
    message: str


@dataclass
class VerifyReport:
    """What `verify` found.

    Attributes:
        problems: all findings; none means whole.
        checked: files that were looked at, as paths inside the database.
        version: version whose shards were checked, 0 when none could be read.
        segments: live segments of it.
        content_hash: of it, only after a deep check without findings.
    """

    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    version: int = 0
    segments: int = 0
    content_hash: str = ""

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def verify(path: Path, version: int | None = None, deep: bool = False) -> VerifyReport:
    """Check FORMAT, all manifests, and the files of one version (the current one by default).

    Args:
        path: folder of the database.
        version: version whose shards are checked.
        deep: read every byte: all digests, unit finite vectors, order, ids, ranges, moments, sums and counts.
    """
    path = Path(path).absolute()
    report = VerifyReport()
    _check_format(path, report)
    chosen = _check_manifests(path, version, report)
    if chosen is None:
        return report
    manifest, _lease = chosen  # held to the end, so that nobody removes the files meanwhile
    report.version, report.segments = manifest.version, manifest.rows
    for entry in manifest.shards:
        _check_shard_files(path, entry, manifest, report, deep=deep)
    if deep and report.ok:
        _check_content(path, manifest, report)
    return report


def untouched(path: Path, report: VerifyReport) -> list[int]:
    """Whole manifests that name no file with a problem, as versions; none when FORMAT has one."""
    files = {problem.file for problem in report.problems if problem.code != "E311"}  # versions do without an index
    if "FORMAT" in files:
        return []
    # A problem names a file of a shard; a version names the folder.
    touched = files | {str(Path(file).parent) for file in files}
    valid = valid_manifests(path.absolute())
    return [manifest.version for manifest in valid if touched.isdisjoint(named_files([manifest]))]


def _check_format(path: Path, report: VerifyReport) -> None:
    report.checked.append("FORMAT")
    try:
        data = (path / "FORMAT").read_bytes()
    except OSError as error:
        report.problems.append(_problem("FORMAT", error))
        return
    if data != FORMAT_BYTES:
        report.problems.append(Problem("E303", "FORMAT", f"expected {FORMAT_BYTES!r}, got {data[:40]!r}"))


def _check_manifests(path: Path, version: int | None, report: VerifyReport) -> tuple[Manifest, Lease] | None:
    """Check every manifest; return the asked one, by default the highest that is whole, with a lease on it."""
    chosen: tuple[Manifest, Lease] | None = None
    for number in reversed(versions(path)):
        name = str(manifest_path(path, number).relative_to(path))
        try:
            manifest = read_manifest(path, number)
            if version == number or (version is None and chosen is None):
                chosen = manifest, Lease(manifest_path(path, number))
        except (DatabaseError, OSError) as error:
            if number in versions(path):
                report.problems.append(_problem(name, error))
            elif version is None and chosen is None:
                return _check_manifests(path, version, report)  # it was collected, so there is a newer one
            else:
                continue
        report.checked.append(name)
    known = versions(path)
    if chosen is None and (version is None or version not in known):
        why = "no manifest is whole" if known else "there is no manifest"
        wanted = why if version is None else f"there is no version {version}"
        report.problems.append(Problem("E302" if version is None else "E306", "manifests", wanted))
    return chosen


def _problem(name: str, error: Exception) -> Problem:
    if isinstance(error, DatabaseError):
        return Problem(error.code, name, f"{error.what} {error.why}".strip())
    missing = not isinstance(error, OSError) or isinstance(error, (FileNotFoundError, NotADirectoryError))
    return Problem("E303" if missing else "E320", name, str(error))


def _check_shard_files(path: Path, entry: ShardEntry, manifest: Manifest, report: VerifyReport, *, deep: bool) -> None:
    """Sizes and digests of one shard and its bitmap; vectors.f16 is read by deep checks only."""
    reader = ShardReader(path / "shards" / entry.id, entry, manifest.space.dim)
    for name, file in entry.files.items():
        relative = f"shards/{entry.id}/{name}"
        report.checked.append(relative)
        try:
            size = (path / relative).stat().st_size
            whole = size == file.bytes
            if whole and (deep or name != "vectors.f16"):
                whole = file_sha256(path / relative) == file.sha256
        except OSError as error:
            report.problems.append(_problem(relative, error))
            continue
        if not whole:
            report.problems.append(Problem("E303", relative, "its size or SHA-256 is not the manifest's"))
    if entry.deletes is not None:
        relative = f"deletes/{entry.deletes.id}.roaring"
        report.checked.append(relative)
        _note(report, relative, lambda: read_deletes(path, entry))
    if deep and report.ok:
        _note(report, f"shards/{entry.id}", lambda: _check_rows(reader, manifest))
    if deep and report.ok:
        _check_index(reader, report)


def _check_index(reader: ShardReader, report: VerifyReport) -> None:
    """An index is no part of the version, but who uses it must not be led astray."""
    from retclip.shards.search.index_files import INDEX_FILE, check_index

    if (reader.folder / INDEX_FILE).exists():
        relative = f"shards/{reader.entry.id}/{INDEX_FILE}"
        report.checked.append(relative)
        _note(report, relative, lambda: check_index(reader))


def _check_rows(reader: ShardReader, manifest: Manifest) -> None:
    from retclip.shards.shard_check import shard_problems  # needs Arrow

    problems = shard_problems(reader, manifest)
    if problems:
        text = "; ".join(f"{name}: {message}" for name, message in problems)
        raise DatabaseError("E303", f"Shard {reader.entry.id} contradicts itself.", why=text)


def _note(report: VerifyReport, name: str, check: Callable[[], object]) -> None:
    """Run a check and list the damage it raises."""
    try:
        check()
    except (DatabaseError, OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        report.problems.append(_problem(name, error))


def _check_content(path: Path, manifest: Manifest, report: VerifyReport) -> None:
    """What no single shard can tell: live ids are unique, and the manifest's counts are right."""
    shards = [
        LiveShard(ShardReader(path / "shards" / e.id, e, manifest.space.dim), read_deletes(path, e))
        for e in manifest.shards
    ]
    snapshot = Snapshot(shards, manifest.classes, manifest.space.dim)
    name = str(manifest_path(path, manifest.version).relative_to(path))
    if snapshot.counts() != dict(manifest.counts):
        report.problems.append(Problem("E303", name, "its counts of live rows are not those of the shards"))
    ids = [part.reader.row_ids[snapshot.live_mask(shard)] for shard, part in enumerate(shards)]
    every = np.concatenate(ids) if ids else np.zeros(0, np.uint64)
    if len(np.unique(every)) != len(every):
        report.problems.append(Problem("E303", name, "a segment id is live twice"))
    if report.ok:
        report.content_hash = Database(path, manifest).content_hash()
