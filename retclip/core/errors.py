"""Errors that tell a user what happened, why, and how to mend it.

Every error the package raises on purpose derives from `RetclipError`. The command line prints its three
lines and leaves with its exit code; `docs/errors.md` lists the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar


class RetclipError(Exception):
    """Base of all deliberate errors.

    Args:
        code: stable identifier, `E` and three digits (docs/errors.md).
        what: what happened, one line, with the name of the thing it happened to.
        why: the cause or what was expected.
        fix: what to do next, if possible a command to copy.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between processes; pickle would call the class with the message alone.
        return _unpickled, (type(self), self.__dict__)

    def __str__(self) -> str:
        lines = [f"{self.code} {self.what}"]
        for name, text in (("why", self.why), ("fix", self.fix)):
            if text:
                # Several reasons stand below one another.
                lines.append(f"  {name}: " + text.replace("\n", "\n       "))
        return "\n".join(lines)


def _unpickled(kind: type[RetclipError], state: dict[str, str]) -> RetclipError:
    error = kind.__new__(kind, state["what"])
    error.__dict__.update(state)
    return error


class InputError(RetclipError):
    """The user's files, class lists or settings are not usable."""

    exit_code = 3


class ImageError(InputError):
    """One picture cannot be used; the rest of a run goes on without it."""


class ModelError(RetclipError):
    """A model, its weights or the code for it is not available."""

    exit_code = 4


class DatabaseError(RetclipError):
    """A database is missing, damaged, busy or does not fit the request."""

    exit_code = 5


class FailuresError(RetclipError):
    """The work finished, but more items failed than `--max-failures` allows."""

    exit_code = 6


class ResourceError(RetclipError):
    """The machine ran out of disk or memory."""

    exit_code = 7


class FeatureSpaceMismatch(DatabaseError):
    """Vectors of two encoders met; they must never be compared."""

    def __init__(self, name: str, stored: str, asked: str, differences: Sequence[str]) -> None:
        super().__init__(
            "E301",
            f"Database '{name}' was built with {stored}; you asked for {asked}.",
            why="Vectors of different feature spaces are not comparable. Differs in: " + "; ".join(differences),
            fix="Leave --preset out to use the database's own preset, or build a new database with this one.",
        )


class EmptyDatabase(DatabaseError):
    """There is nothing to compare with."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            "E302",
            f"Database '{name}' version {version} holds no segments.",
            why="Nothing was built into it yet, its build was interrupted, or everything was deleted.",
            fix=f"retclip index build --db {name} --source ...  (an interrupted build goes on where it stopped)",
        )


def joined(errors: Sequence[RetclipError]) -> RetclipError:
    """One error that tells of several, so that a user mends all at once; the first gives code and exit code."""
    if len(errors) == 1:
        return errors[0]
    kind = next(kind for kind in (InputError, ModelError, DatabaseError, RetclipError) if isinstance(errors[0], kind))
    return kind(
        errors[0].code,
        " ".join(error.what for error in errors),
        why="\n".join(error.why for error in errors if error.why),
        fix="\n".join(dict.fromkeys(error.fix for error in errors if error.fix)),
    )


@contextmanager
def collected(problems: list[RetclipError]) -> Iterator[None]:
    """Keep a deliberate error for `joined` and go on after the block."""
    try:
        yield
    except RetclipError as error:
        problems.append(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Torch reports a full GPU, and a refused allocation on the CPU, as RuntimeErrors of its own."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and any(sign in str(error) for sign in ("out of memory", "not enough memory", "can't allocate memory"))
    )


@contextmanager
def translated(explain: Callable[[Exception], RetclipError]) -> Iterator[None]:
    """Turn what a foreign library raises on strange input, of whatever type, into an error of ours.

    Our own errors pass, and so does a full memory: it is no fault of the input, which must not be called damaged.
    """
    try:
        yield
    except RetclipError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise explain(error) from error


def require(condition: bool, name: str, expected: str, got: object) -> None:
    """Refuse a wrong value at birth: raise ValueError naming the value, what was expected and what came."""
    if not condition:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def first_line(error: Exception) -> str:
    """Type and first line of a foreign error, at most 200 characters."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}"[:200]
