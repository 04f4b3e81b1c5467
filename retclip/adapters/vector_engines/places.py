"""Where an engine's data lies, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from retclip.core.errors import DatabaseError, first_line, translated


@dataclass(frozen=True)
class Place:
    """An engine with its data.

    Attributes:
        engine: `lancedb` or `qdrant`.
        where: a folder, or the address of a server or an object store.
        name: of a table or collection there; empty takes the only one.
    """

    engine: str
    where: str
    name: str = ""

    @property
    def is_remote(self) -> bool:
        """Whether `where` is an address."""
        return "://" in self.where

    @property
    def advice(self) -> str:
        """What to do when it cannot be used."""
        if self.engine == "lancedb":
            return "Check the address, the permissions and the room."
        if self.is_remote:
            return "Check that the server runs at that address, and $QDRANT_API_KEY."
        return "Check the folder; one that another program has open needs a Qdrant server (qdrant:http://HOST:6333)."

    def __str__(self) -> str:
        return f"{self.engine}:{self.where}" + (f"#{self.name}" if self.name else "")


def check_folder(place: Place) -> None:
    """Raise DatabaseError E332 for a folder that does not exist; both libraries would make it."""
    if not place.is_remote and not Path(place.where).is_dir():
        raise _nothing(place)


def one_of(names: Sequence[str], place: Place) -> str:
    """The table that is asked for. Raises DatabaseError E332 when there is none, or several and none was named."""
    if place.name in names or (len(names) == 1 and not place.name):
        return place.name or names[0]
    if not names:
        raise _nothing(place)
    what = f"{place} does not exist." if place.name else f"There are several databases at {place}."
    why = f"There are: {', '.join(sorted(names))}."
    raise DatabaseError("E332", what, why=why, fix=f"Name one: {place.engine}:{place.where}#{sorted(names)[0]}")


def _nothing(place: Place) -> DatabaseError:
    fix = f"retclip db export NAME {place.where} --to {place.engine}"
    return DatabaseError("E332", f"There is no database at {place}.", why="Nothing was exported there.", fix=fix)


def taken(place: Place, name: str) -> DatabaseError:
    """The error of a name that is in use."""
    return DatabaseError(
        "E307",
        f"{place.engine}:{place.where}#{name} already exists.",
        why="An export never replaces anything.",
        fix=f"Remove it there, or name another: {place.where}#{name}-2",
    )


def not_exported(place: Place, error: Exception) -> DatabaseError:
    """The error of a table without our facts."""
    return DatabaseError(
        "E334",
        f"{place} is not a database of retclip, or its export was interrupted.",
        why=f"Its facts cannot be read: {first_line(error)}",
        fix=f"Remove it there and run: retclip db export NAME {place.where} --to {place.engine}",
    )


def explained(place: Place) -> AbstractContextManager[None]:
    """Turns errors of an engine into E332; both libraries raise whatever their transport raises."""
    return translated(
        lambda error: DatabaseError("E332", f"{place} cannot be used.", why=first_line(error), fix=place.advice)
    )
