"""Errors that say what, why and how to mend it."""

from __future__ import annotations

import pickle

import pytest

from retclip.core import errors
from retclip.core.errors import (
    DatabaseError,
    EmptyDatabase,
    FeatureSpaceMismatch,
    InputError,
    RetclipError,
    first_line,
    require,
    translated,
)


def test_three_lines_and_never_an_empty_one() -> None:
    full = InputError("E101", "No pictures.", why="The folder is empty.", fix="Check --root.")
    assert str(full) == "E101 No pictures.\n  why: The folder is empty.\n  fix: Check --root."
    assert str(InputError("E101", "No pictures.", fix="Check --root.")) == "E101 No pictures.\n  fix: Check --root."
    assert str(InputError("E101", "No pictures.")) == "E101 No pictures."
    assert (full.code, full.what, full.why, full.fix) == (
        "E101", "No pictures.", "The folder is empty.", "Check --root."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("RetclipError", 1), ("InputError", 3), ("ImageError", 3), ("ModelError", 4), ("DatabaseError", 5),
        ("FailuresError", 6), ("ResourceError", 7), ("FeatureSpaceMismatch", 5), ("EmptyDatabase", 5),
    ],
)  # fmt: skip
def test_exit_codes_are_those_of_the_manual(name: str, code: int) -> None:
    kind = getattr(errors, name)
    assert issubclass(kind, RetclipError)
    assert kind.exit_code == code


def test_messages_that_write_their_own_advice() -> None:
    mismatch = FeatureSpaceMismatch("pets", "timm/a", "timm/b", ["dim: 3 != 4", "stride: 8 != 16"])
    assert "'pets' was built with timm/a; you asked for timm/b" in mismatch.what
    assert "dim: 3 != 4; stride: 8 != 16" in mismatch.why
    empty = EmptyDatabase("pets", 4)
    assert "'pets' version 4" in empty.what
    assert "retclip index build --db pets" in empty.fix


def test_require_names_value_expectation_and_what_came() -> None:
    require(True, "k", "> 0", 1)
    with pytest.raises(ValueError, match=r"^k: expected > 0, got -1$"):
        require(False, "k", "> 0", -1)


def test_errors_travel_between_processes_whole() -> None:
    noted = FeatureSpaceMismatch("db", "one", "two", ["dim: 1 != 2"])
    noted.add_note("from a worker")
    for error in (InputError("E101", "what", why="why", fix="fix"), noted):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), copy.args, copy.__dict__) == (str(error), error.args, error.__dict__)


def explained(error: Exception) -> InputError:
    return InputError("E101", "Damaged.", why=first_line(error))


@pytest.mark.parametrize("error", [ValueError("bad"), RuntimeError("sizes differ"), AssertionError(), OSError("gone")])
def test_what_a_foreign_library_raises_is_translated_and_kept_as_the_cause(error: Exception) -> None:
    with pytest.raises(InputError, match="Damaged") as caught, translated(explained):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory."),
        DatabaseError("E303", "Damaged shard."),
        KeyboardInterrupt(),
    ],
)
def test_our_own_errors_and_a_full_memory_are_nobodys_fault(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, translated(explained):
        raise error
    assert caught.value is error
