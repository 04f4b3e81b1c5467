"""`retclip classes check`, teaching what is missing, and layers of names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import save_photos

Run = Any


def test_a_class_list_is_held_against_a_database(home: Path, run: Run) -> None:
    outcome = run("classes", "check", "red,zebra,St. Bernard", "--db", "pets", "--few", 10, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.json
    assert [(gap["requested"], gap["state"], gap["exemplars"]) for gap in document["classes"]] == [
        ("red", "few", 4),
        ("zebra", "missing", 0),
        ("St. Bernard", "missing", 0),
    ]
    assert (document["punctuated"], document["prompts"]) == (["St. Bernard"], None)
    told = run("classes", "check", "red,zebra", "--db", "pets")
    assert told.out.index("\nzebra") < told.out.index("\nred"), "what is missing comes first"
    assert "retclip index add-classes --db pets" in told.err


def test_only_missing_classes_come_from_a_fallback_unless_asked(
    home: Path, preset: Path, run: Run, tmp_path: Path
) -> None:
    more = save_photos(tmp_path / "more", ("red", "yellow"), count=3, first=70)
    words = ["--source", "folder", "--root", more, "--db", "more", "--preset", preset, "--use-boxes", "--quiet"]
    assert run("index", "build", *words).code == 0
    ask = ["index", "add-classes", "--db", "pets", "--classes", "red,yellow", "--fallback", "more"]
    taught = run(*ask, "--json")
    assert taught.json["classes"] == {"yellow": 3}
    assert "1 asked classes are stored already" in taught.err
    nothing = run(*ask, "--json")
    assert (nothing.code, nothing.json["added"]) == (0, 0)
    assert run(*ask, "--stored-too", "--json").json["classes"] == {"red": 7, "yellow": 3}


def test_a_corpus_as_fallback_teaches_what_is_missing(home: Path, preset: Path, run: Run, tmp_path: Path) -> None:
    more = save_photos(tmp_path / "more", ("red", "yellow"), count=3, first=70)
    words = ["--fallback", "folder", "--root", more, "--use-boxes", "--json"]
    taught = run("index", "add-classes", "--db", "pets", *words)
    assert taught.code == 0, taught.err
    assert taught.json["classes"] == {"yellow": 3}


@pytest.mark.parametrize(
    "words",
    [
        ["--images", "photos", "--root", "."],
        ["--images", "photos", "--stored-too"],
        ["--classes", "red", "--fallback", "pets", "--root", "."],
        ["--classes", "red", "--fallback", "pets", "--use-masks"],
        ["--classes", "red", "--fallback", "pets", "--executor", "processes"],
    ],
)
def test_options_that_would_change_nothing_are_refused(home: Path, run: Run, words: list[str]) -> None:
    outcome = run("index", "add-classes", "--db", "pets", *words, "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E120")
    assert next(word for word in reversed(words) if word.startswith("--")) in outcome.error["message"]


def test_a_plan_tells_which_labels_were_not_asked_for(home: Path, workshop: Path, run: Run) -> None:
    words = ["--source", "folder", "--root", workshop / "photos", "--classes", "red", "--dry-run", "--json"]
    assert run("index", "build", *words).json["unmapped"] == {"blue": 4, "green": 4}
