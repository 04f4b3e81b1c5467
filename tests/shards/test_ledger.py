"""Spill files: what was put comes back, and a torn one counts as absent."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError, ResourceError
from retclip.shards import Ledger, unfinished_jobs
from retclip.shards.ledger import spills_with, spills_without


@pytest.fixture
def ledger(database):
    return Ledger(database.path, "job-1")


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_units_come_back(ledger, rows, dtype):
    segments, vectors = rows
    vectors = vectors.astype(dtype)
    assert not ledger.has("a/1")
    ledger.put("a/1", segments, vectors, {"images": 20, "failed": ["x.jpg"]})
    ledger.put("../ü\0", [], np.zeros((0, 8), dtype), {})
    assert ledger.has("a/1")
    back, stored, report = ledger.read("a/1")
    assert back == segments
    assert stored.dtype == dtype
    assert (stored == vectors).all()
    assert report == {"images": 20, "failed": ["x.jpg"]}
    assert ledger.units() == ["../ü\0", "a/1"]
    assert ledger.read("../ü\0")[0] == []
    assert len(list(ledger.folder.iterdir())) == 2
    (ledger.folder / ".staging-x").write_bytes(b"half a spill")
    with ledger.running():
        assert not (ledger.folder / ".staging-x").exists()
        ledger.forget(["a/1"])
        assert ledger.units() == ["../ü\0"]
        ledger.forget(["../ü\0"])
    assert not ledger.folder.exists()


def test_one_process_at_a_time_works_on_a_job(ledger, database):
    with (
        ledger.running(),
        pytest.raises(DatabaseError, match="running already"),
        Ledger(database.path, "job-1").running(),
    ):
        pytest.fail("a second run was let in")


def test_a_job_goes_on_whose_folder_another_process_has_removed_meanwhile(ledger, database, rows):
    with ledger.running():
        second = Ledger(database.path, "job-1")
    with second.running():
        second.put("u", *rows, {})
        assert second.units() == ["u"]


def test_what_other_programs_leave_among_the_jobs_is_no_job(ledger, database, rows):
    ledger.put("u", *rows, {})
    (ledger.folder.parent / ".DS_Store").write_bytes(b"a file")
    (ledger.folder.parent / "Icon").write_bytes(b"a file with a name like that of a job")
    hidden = ledger.folder.parent / ".Trash"
    hidden.mkdir()
    (hidden / "u.spill").write_bytes(b"")
    assert unfinished_jobs(database.path) == [("job-1", 1)]
    assert [key for _, key, _, _ in spills_with(database.path, "source", rows[0][0].source)] == ["u"]
    assert list(spills_without(database.path, {1})) == []


def test_a_new_ledger_of_the_same_job_resumes(ledger, database, rows):
    ledger.put("u", *rows, {})
    assert Ledger(database.path, "job-1").units() == ["u"]
    assert Ledger(database.path, "job-2").units() == []


def test_missing_values_survive(ledger, make):
    from dataclasses import replace

    segment = replace(make.segment(1, "x"), mask_iou=math.nan)
    ledger.put("u", [segment], np.ones((1, 8), np.float32), {})
    assert math.isnan(ledger.read("u")[0][0].mask_iou)


def test_any_damage_counts_as_absent_and_is_removed(ledger, make):
    ledger.put("u", [make.segment(1, "x")], np.ones((1, 8), np.float32), {"n": 1})
    path = next(ledger.folder.iterdir())
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    cuts = [whole[:n] for n in {0, 1, 15, 16, len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()}]
    flips = []
    for place in {*range(24), len(whole) - 1, *rng.integers(0, len(whole), 40).tolist()}:
        changed = bytearray(whole)
        changed[place] ^= 16
        flips.append(bytes(changed))
    for data in [*cuts, *flips, whole + b"\0"]:
        path.write_bytes(data)
        assert not ledger.has("u")
        assert not path.exists()
        with pytest.raises(KeyError):
            ledger.read("u")
    path.write_bytes(whole)
    assert ledger.has("u")
    path.rename(path.with_name("0" * 32 + ".spill"))
    assert ledger.units() == []


@given(job=st.sampled_from(["", ".", "..", "a/b", "../x", "a\0", ".hidden", "x" * 101]))
def test_job_names_cannot_leave_the_folder(tmp_path_factory, job):
    with pytest.raises(ValueError, match="job"):
        Ledger(tmp_path_factory.getbasetemp(), job)


def test_refusals(ledger, rows, tmp_path, monkeypatch):
    segments, vectors = rows
    with pytest.raises(DatabaseError, match="E306"):
        Ledger(tmp_path / "nothing", "job")
    assert not (tmp_path / "nothing").exists()
    for bad in (vectors[:-1], vectors.astype(np.float64), vectors.ravel()):
        with pytest.raises(ValueError, match="vectors"):
            ledger.put("u", segments, bad, {})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResourceError, match="E401"):
        ledger.put("u", segments, vectors, {})
    assert list(ledger.folder.iterdir()) == []
