"""Finds databases by name or path, at a version: `name`, `name@7`, `path/to/x.retdb`, `path/to/x.retdb@7`."""

from __future__ import annotations

import difflib
import logging
import os
import re
from pathlib import Path

from retclip.core.errors import DatabaseError
from retclip.shards.database import Database
from retclip.shards.manifest import unreadable

SUFFIX = ".retdb"
ENGINES = ("lancedb", "qdrant")
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSIONED = re.compile(r"(?P<place>.+)@(?P<version>[0-9]{1,12})", re.DOTALL)


def home() -> Path:
    """`$RETCLIP_HOME`, or `~/.retclip`."""
    given = os.environ.get("RETCLIP_HOME")
    return Path(given) if given else Path.home() / ".retclip"


def database_path(name_or_path: str) -> Path:
    """Folder that a name or a path means, whether it exists or not.

    A text with a path separator or the ending `.retdb` is a path; anything else is a name in `$RETCLIP_HOME/db`.

    Raises:
        DatabaseError: E306 for a name with other characters than letters, digits, dot, dash and underscore, and for a
            vector engine.
    """
    if is_engine(name_or_path):
        raise DatabaseError(
            "E306",
            f"'{name_or_path}' is in a vector engine.",
            why="This command needs a database of retclip's own; only segment asks engines.",
            fix="Name the database that was exported; see what there is with: retclip db list",
        )
    if os.sep in name_or_path or name_or_path.endswith(SUFFIX):
        return Path(name_or_path).expanduser()
    if not _NAME.fullmatch(name_or_path):
        raise _no_name(name_or_path)
    return home() / "db" / (name_or_path + SUFFIX)


def new_database_path(name_or_path: str) -> Path:
    """`database_path` of a database that is to be made.

    Raises:
        DatabaseError: E306 as there, and for a path without the ending: its database could not be told from a name.
    """
    path = database_path(name_or_path)
    if path.suffix != SUFFIX:
        raise _no_name(name_or_path)
    return path


def is_engine(reference: str) -> bool:
    """Whether a reference such as `lancedb:DIR` names a vector engine and not a database of ours."""
    engine, colon, _ = reference.partition(":")
    return bool(colon) and engine in ENGINES


def _no_name(text: str) -> DatabaseError:
    return DatabaseError(
        "E306",
        f"'{text}' is not a database name.",
        why="Names start with a letter or digit and have letters, digits, dot, dash and underscore, at most 100.",
        fix=f"Use such a name, or a path that ends with {SUFFIX}.",
    )


def locate_database(reference: str) -> tuple[Path, int | None]:
    """Folder and version (None = the newest) of an existing database, by name or path, `@<number>` asks for a version.

    Raises:
        DatabaseError: E306 when there is none, with near names; E320 when the folders on the way cannot be read.
    """
    match = _VERSIONED.fullmatch(reference)
    place, version = (match["place"], int(match["version"])) if match else (reference, None)
    path = database_path(place)
    try:
        there = path.is_dir()
    except OSError as error:
        raise unreadable(path, error) from error
    if not there:
        names = [known.name.removesuffix(SUFFIX) for known in list_databases()]
        near = difflib.get_close_matches(path.name.removesuffix(SUFFIX), names, n=3, cutoff=0.5)
        raise DatabaseError(
            "E306",
            f"There is no database '{place}'.",
            why=f"Looked at {path}." + (f" Did you mean: {', '.join(near)}?" if near else ""),
            fix="See what there is with: retclip db list",
        )
    return path, version


def open_database(reference: str) -> Database:
    """Open a database by name or path; `@<number>` at the end asks for a version.

    Logs a warning when the newest version is damaged and an older one is served.

    Raises:
        DatabaseError: E306 when there is none; the errors of `Database.open` otherwise.
    """
    path, version = locate_database(reference)
    database = Database.open(path, version)
    if version is None and (newer := database.passed_over):
        _log.warning(
            "Database %s: version %s is damaged and is passed over; version %d is served; more: retclip db verify %s",
            database.name,
            ", ".join(map(str, newer)),
            database.version,
            reference,
        )
    return database


def list_databases() -> list[Path]:
    """Folders of all databases in `$RETCLIP_HOME/db`, by name.

    Raises:
        DatabaseError: E320 when that folder cannot be read.
    """
    return sorted(folder for folder in _entries(home() / "db") if _may_be_database(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.endswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error


def _may_be_database(folder: Path) -> bool:
    """Whether it has a FORMAT file; a folder that keeps it from us counts, so that opening it tells what is wrong."""
    try:
        (folder / "FORMAT").stat()
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
