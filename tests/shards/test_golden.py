"""The database that format 1 was released with must stay readable."""

import importlib.util
import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from retclip.shards import Database, verify

FOLDER = Path(__file__).resolve().parents[1] / "data" / "databases" / "format1"


@pytest.fixture
def maker():
    spec = importlib.util.spec_from_file_location("format1_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def golden(tmp_path):
    """A copy: git keeps no empty folders, and tests must not write into the original."""
    path = tmp_path / "golden.retdb"
    shutil.copytree(FOLDER / "golden.retdb", path)
    return path


def test_the_golden_database_is_whole_and_says_the_same(golden, maker):
    expected = json.loads((FOLDER / "expected.json").read_text())
    database = Database.open(golden)
    report = verify(golden, deep=True)
    assert report.ok, report.problems
    assert database.content_hash() == report.content_hash == expected["content_hash"]
    assert Database.open(golden, 2).content_hash() == expected["hash_of_version_2"]
    assert [[c.id, c.name, list(c.aliases), c.is_thing, c.count] for c in database.classes] == expected["classes"]
    found = database.search(maker.vectors()[:5], 4)
    np.testing.assert_allclose(found.distance, expected["distance"], atol=1e-6)
    assert found.segment_id.tolist() == expected["segment_id"]


def test_the_golden_rows_are_those_that_were_written(golden, maker):
    old = Database.open(golden, 2)
    rows = {s.segment_id: (s, (shard, row)) for shard, row, s in old.iter_segments()}
    vectors = maker.vectors()
    for number in range(maker.ROWS):
        segment, position = rows[maker.segment(number).segment_id]
        stored, written = asdict(segment), asdict(maker.segment(number))
        assert math.isnan(stored.pop("detector_score"))
        assert math.isnan(written.pop("detector_score"))
        assert stored == written
        unit = vectors[number] / np.linalg.norm(vectors[number])
        np.testing.assert_allclose(old.vectors([position])[0], unit, atol=2**-11)


def test_todays_program_makes_the_same_content(golden, maker, tmp_path, monkeypatch):
    monkeypatch.setattr(maker, "HERE", tmp_path / "again")
    (tmp_path / "again").mkdir()
    maker.main()
    again = Database.open(tmp_path / "again" / "golden.retdb")
    assert again.content_hash() == Database.open(golden).content_hash()
    written, expected = (json.loads((f / "expected.json").read_text()) for f in (tmp_path / "again", FOLDER))
    np.testing.assert_allclose(written.pop("distance"), expected.pop("distance"), atol=1e-6)
    assert written == expected


def test_the_golden_database_can_be_written_on(golden, maker):
    shutil.rmtree(golden / "jobs", ignore_errors=True)
    shutil.rmtree(golden / "deletes")
    database = Database.open(golden, 2).restore(2)
    with database.write("empty", "tests") as transaction:
        transaction.delete(segment_ids=[maker.segment(0).segment_id])
        database = transaction.commit()
    with database.write("add", "tests") as transaction:
        assert transaction.add([maker.segment(0)], maker.vectors()[:1]) == 1
        assert len(transaction.commit()) == 20
