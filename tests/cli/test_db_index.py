"""`retclip db index` and `db plan`: how a database is searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from retclip.shards import verify

Run = Any


def test_a_small_database_is_scanned_whole_or_by_class(home: Path, run: Run) -> None:
    whole = run("db", "plan", "pets", "--json").json
    assert (whole["backend"], whole["rows_scanned"], whole["exact"]) == ("cpu", 12, True)
    some = run("db", "plan", "pets", "--classes", "red,zebra", "--json").json
    assert some["rows_scanned"] == 4
    assert "4 of 12 rows" in some["reason"]
    told = run("db", "plan", "pets", "--classes", "red,zebra")
    assert "not measured" in told.out
    assert told.err.strip() == "note: not stored: zebra"
    unknown = run("db", "plan", "pets", "--classes", "zebra", "--json")
    assert (unknown.code, unknown.error["code"]) == (5, "E309")


def test_an_index_is_built_once_and_changes_no_answer(home: Path, street: Path, run: Run) -> None:
    before = run("db", "search", "pets", "--image", street, "--json").json
    assert run("db", "index", "pets", "--json").json["indexed_shards"] == 1
    assert run("db", "index", "pets", "--json").json["indexed_shards"] == 0
    assert run("db", "search", "pets", "--image", street, "--json").json == before
    assert verify(home / "db" / "pets.retdb", deep=True).ok


def test_an_unknown_transform_is_told(home: Path, run: Run) -> None:
    assert run("db", "index", "pets", "--transform", "centred", "--json").error["code"] == "E120"
