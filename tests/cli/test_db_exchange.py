"""`retclip db export | import`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retclip.assembly import make_segmenter
from retclip.core.images import read_picture
from retclip.presets import load_preset
from retclip.shards import Database
from tests.absence import require_library

Run = Any


def test_parquet_and_back(home: Path, run: Run, tmp_path: Path) -> None:
    exported = run("db", "export", "pets", tmp_path / "pets.parquet", "--json")
    assert exported.json == {
        "database": "pets", "version": 2, "to": str(tmp_path / "pets.parquet"), "segments": 12,
    }  # fmt: skip
    imported = run("db", "import", tmp_path / "pets.parquet", "--db", "again", "--json")
    assert (imported.code, imported.json["segments"], imported.err) == (0, 12, "")
    one, two = (Database.open(home / "db" / f"{name}.retdb") for name in ("pets", "again"))
    assert one.content_hash() == two.content_hash()
    twice = run("db", "import", tmp_path / "pets.parquet", "--db", "again", "--json")
    assert (twice.code, twice.error["code"]) == (5, "E307")
    wrong = run("db", "import", home / "db" / "pets.retdb" / "FORMAT", "--db", "third", "--json")
    assert (wrong.code, wrong.error["code"]) == (5, "E334")
    assert not (home / "db" / "third.retdb").exists()


def test_an_export_makes_its_folder_and_replaces_no_file(home: Path, run: Run, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "pets.parquet"
    assert run("db", "export", "pets", target).code == 0
    taken = run("db", "export", "pets", target, "--json")
    assert (taken.code, taken.error["code"]) == (5, "E307")
    assert taken.error["hint"] == "Choose another name, or remove it."
    refused = run("db", "import", target, "--db", "a/b", "--json")
    assert (refused.code, refused.error["code"]) == (5, "E306")


def test_engines_are_not_layered(home: Path, run: Run) -> None:
    for reference in ("lancedb:D#n,pets", "pets,lancedb:D#n"):
        refused = run("segment", __file__, "--db", reference, "--json")
        assert (refused.code, refused.error["message"]) == (5, "Vector engines cannot be layered with others.")


def test_wrong_words_are_refused(home: Path, run: Run, tmp_path: Path) -> None:
    unknown = run("db", "export", "pets", tmp_path / "x", "--to", "milvus", "--json")
    assert (unknown.code, unknown.error["code"]) == (3, "E120")
    raw = run("db", "export", "pets", tmp_path / "x", "--transform", "centre", "--json")
    assert (raw.code, raw.error["code"]) == (3, "E120")
    other = run("db", "export", "pets", tmp_path / "x", "--to", "lancedb", "--transform", "rotate", "--json")
    assert other.error["code"] == "E120"
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("engine", "library"), [("lancedb", "lancedb"), ("qdrant", "qdrant_client")])
def test_a_picture_is_segmented_from_an_engine_alone(
    home: Path, preset: Path, street: Path, run: Run, tmp_path: Path, engine: str, library: str
) -> None:
    require_library(library, engine)
    from retclip.adapters.vector_engines import open_engine

    exported = run("db", "export", "pets", tmp_path / "copy", "--to", engine, "--json")
    assert exported.json["to"] == f"{engine}:{tmp_path / 'copy'}"
    database, settings = Database.open(home / "db" / "pets.retdb"), load_preset(str(preset))
    expected = make_segmenter(database, None, settings, None, "cpu").segment([read_picture(street)])[0]
    (home / "db" / "pets.retdb").rename(tmp_path / "away")
    with open_engine(exported.json["to"]) as index:
        result = make_segmenter(index, None, settings, None, "cpu").segment([read_picture(street)])[0]  # type: ignore[arg-type]
    assert (result.panoptic.ids == expected.panoptic.ids).all()
    assert len(expected.explanations) > 0
    for mine, theirs in zip(result.explanations, expected.explanations, strict=True):
        assert (mine.label, mine.proposal, mine.decided_by) == (theirs.label, theirs.proposal, theirs.decided_by)
        assert mine.segment.score == pytest.approx(theirs.segment.score, abs=1e-5)
        assert [repr(n.stored) for n in mine.neighbors] == [repr(n.stored) for n in theirs.neighbors]
        assert [n.database for n in mine.neighbors] == [n.database for n in theirs.neighbors]
    assert result.run["db"][0]["engine"] == engine
