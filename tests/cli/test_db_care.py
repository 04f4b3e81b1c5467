"""`retclip db diff | compact | gc | copy | merge | erase | health | prune | suggest`."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from retclip.shards import Database, verify

Run = Any


def path_of(home: Path, name: str = "pets") -> Path:
    return home / "db" / f"{name}.retdb"


def test_diff_tells_versions_apart(home: Path, run: Run) -> None:
    assert run("db", "relabel", "pets", "red", "crimson").code == 0
    assert run("db", "delete", "pets", "--label", "blue", "--yes").code == 0
    found = run("db", "diff", "pets@2", "pets", "--json").json
    assert found["removed"] == {"blue": 4}
    assert found["relabelled"] == [{"from": "red", "to": "crimson", "segments": 4}]
    assert (found["classes_added"], found["classes_removed"]) == (["crimson"], ["blue", "red"])
    assert "was 'red'" in run("db", "diff", "pets@2", "pets").out
    assert "The same segments" in run("db", "diff", "pets", "pets").out


def test_deleting_much_rewrites_worn_shards_and_undo_still_works(home: Path, run: Run) -> None:
    gone = run("db", "delete", "pets", "--label", "red", "--yes")
    assert "worn shards rewritten: 1" in gone.out
    assert run("db", "info", "pets", "--json").json["dead_rows"] == 0
    refused = run("db", "compact", "pets", "--json")
    assert (refused.code, refused.error["code"]) == (5, "E315")
    assert run("db", "undo", "pets", "--json").json["segments"] == 12


def test_compact_rewrites_what_info_says_is_worn(home: Path, run: Run) -> None:
    with Database.open(path_of(home)).write("delete", "tests") as transaction:
        transaction.delete(labels=["red"])
        transaction.commit()
    info = run("db", "info", "pets", "--json").json
    assert (info["dead_rows"], info["worn_shards"]) == (4, 1)
    assert "retclip db compact pets" in run("db", "info", "pets").out
    done = run("db", "compact", "pets", "--json").json
    assert (done["changed"], done["segments"]) == (1, 8)
    after = run("db", "info", "pets", "--json").json
    assert (after["dead_rows"], after["content_hash"]) == (0, info["content_hash"])


def test_gc_asks_and_keeps_what_it_says(home: Path, run: Run) -> None:
    for kind in ("whiten", "centre", "none"):
        assert run("db", "transform", "pets", kind).code == 0
    dry = run("db", "gc", "pets", "--keep", "2", "--dry-run", "--json").json
    assert (dry["dry_run"], dry["versions"]) == (True, [1, 2, 3])
    assert len(run("db", "log", "pets", "--json").json) == 5
    done = run("db", "gc", "pets", "--keep", "2", "--yes", "--json").json
    assert (done["versions"], done["bytes"]) == (dry["versions"], dry["bytes"])
    assert [entry["version"] for entry in run("db", "log", "pets", "--json").json] == [4, 5]
    assert run("db", "info", "pets@2", "--json").error["code"] == "E306"
    assert run("db", "gc", "pets@4", "--json").error["code"] == "E120"


def test_gc_asks_before_it_removes_what_a_killed_program_left(home: Path, run: Run) -> None:
    """There are no old versions to remove, and still something to do."""
    left = path_of(home) / "shards" / ("e" * 32)
    left.mkdir()
    (left / "vectors.f16").write_bytes(b"x" * 2345)
    os.utime(left, (0, 0))
    assert (
        "would remove 0 versions and 1 leftovers of killed programs (2,345 bytes)"
        in run("db", "gc", "pets", "--dry-run").out
    )
    assert left.exists()
    assert run("db", "gc", "pets", "--yes", "--json").json["leftovers"] == [f"pets.retdb/shards/{'e' * 32}"]
    assert not left.exists()


def test_info_tells_of_unfinished_copies_and_gc_removes_them(home: Path, run: Run) -> None:
    assert run("db", "info", "pets", "--json").json["abandoned"] == []
    left = home / "db" / f".staging-{'a' * 32}"
    shutil.copytree(path_of(home), left)
    for path in (*left.rglob("*"), left):
        os.utime(path, (0, 0))
    assert run("db", "info", "pets", "--json").json["abandoned"] == [str(left)]
    assert "1 beside it, of killed programs (retclip db gc pets)" in run("db", "info", "pets").out
    assert run("db", "gc", "pets", "--yes", "--json").json["leftovers"] == [left.name]
    assert not left.exists()


def test_copy_and_merge_make_new_databases(home: Path, run: Run) -> None:
    assert run("db", "copy", "pets", "warm", "--classes", "red", "--json").json["segments"] == 4
    assert run("db", "copy", "pets@2", "all", "--json").json["segments"] == 12
    content = run("db", "info", "pets", "--json").json["content_hash"]
    assert run("db", "info", "all", "--json").json["content_hash"] == content
    assert run("db", "delete", "all", "--label", "red", "--yes").code == 0
    assert run("db", "relabel", "warm", "red", "crimson").code == 0
    merged = run("db", "merge", "warm", "all", "--out", "both", "--json").json
    assert (merged["segments"], merged["classes"], merged["known"], merged["conflicts"]) == (12, 3, 0, [])
    assert {row["name"] for row in run("db", "classes", "both", "--json").json} == {"crimson", "blue", "green"}
    contradiction = run("db", "merge", "warm", "pets", "--out", "third")
    assert contradiction.code == 0
    assert "4 were in both" in contradiction.out
    assert run("db", "copy", "pets", "both", "--json").error["code"] == "E307"


def test_erase_prints_its_proof(home: Path, workshop: Path, run: Run) -> None:
    photo = workshop / "photos/red/0.png"
    proof = run("db", "erase", "pets", "--image", photo, "--yes", "--json").json
    assert (proof["segments"], proof["images"], proof["found"], proof["versions"]) == (1, 1, 0, [2])
    assert proof["thumbnails"] == 1
    digest = hashlib.sha256(photo.read_bytes()).hexdigest().encode()
    assert not [p for p in path_of(home).rglob("*") if p.is_file() and digest in p.read_bytes()]
    assert verify(path_of(home), deep=True).ok
    again = run("db", "erase", "pets", "--image", digest.decode(), "--yes", "--json")
    assert (again.code, again.error["code"]) == (5, "E317")
    assert "searched" in run("db", "erase", "pets", "--source", "folder", "--yes").out
    assert run("db", "info", "pets", "--json").json["segments"] == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [((), "E120"), (("--source", "folder", "--image", "x"), "E120"), (("--image", "nothing.jpg"), "E111")],
)
def test_erase_needs_one_thing_to_erase(home: Path, run: Run, words: tuple[str, ...], code: str) -> None:
    outcome = run("db", "erase", "pets", *words, "--yes", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, code)


@pytest.mark.parametrize(
    "words",
    [
        ("delete", "pets", "--label", "red"),
        ("gc", "pets", "--keep", "1"),
        ("prune", "pets", "--disagreeing"),
        ("erase", "pets", "--source", "folder"),
    ],
)
def test_under_json_nobody_is_asked(home: Path, workshop: Path, run: Run, words: tuple[str, ...]) -> None:
    mislabel(home, workshop)
    outcome = run("db", *words, "--json")
    assert (outcome.code, outcome.out) == (3, "")
    assert (outcome.error["code"], outcome.error["hint"]) == ("E120", "Add --yes.")
    assert len(outcome.err.strip().splitlines()) == 1
    assert [entry["version"] for entry in run("db", "log", "pets", "--json").json] == [1, 2, 3]


def test_erase_says_what_goes_before_it_asks(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    refused = run("db", "erase", "pets", "--source", "folder")
    assert refused.code == 1
    assert "12 segments, with versions 2" in refused.err
    nothing = run("db", "erase", "pets", "--source", "nosuch")
    assert (nothing.code, "E317" in nothing.err, "for good" in nothing.err) == (5, True, False)


@pytest.mark.parametrize("target", ["a/b", "../evil", "a/.retdb"])
def test_new_databases_end_with_retdb_or_have_a_name(home: Path, run: Run, tmp_path: Path, target: str) -> None:
    for words in (("copy", "pets", target), ("merge", "pets", "pets", "--out", target)):
        refused = run("db", *words, "--json")
        assert (refused.code, refused.error["code"]) == (5, "E306")
        assert "ends with .retdb" in refused.error["hint"]
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize("classes", ["", " , "])
def test_a_copy_of_no_class_is_refused(home: Path, run: Run, classes: str) -> None:
    refused = run("db", "copy", "pets", "none", "--classes", classes, "--json")
    assert (refused.code, refused.error["code"]) == (3, "E121")
    assert not path_of(home, "none").exists()


def mislabel(home: Path, workshop: Path) -> str:
    """Call one red thing blue; returns its id."""
    database = Database.open(path_of(home))
    wrong = next(s for _, _, s in database.iter_segments() if s.label == "red")
    with database.write("relabel", "tests") as transaction:
        transaction.relabel_segments([wrong.segment_id], "blue")
        transaction.commit()
    return f"{wrong.segment_id:016x}"


def test_health_finds_a_wrong_label_and_shows_it(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    wrong = mislabel(home, workshop)
    found = run("db", "health", "pets", "--html", tmp_path / "health.html", "--json").json
    assert [item["segment_id"] for item in found["disagreeing"]] == [wrong]
    assert (found["disagreeing"][0]["label"], found["disagreeing"][0]["other"]) == ("blue", "red")
    photos = {str(workshop / "photos" / colour / f"{n}.png") for colour in ("red", "green", "blue") for n in range(4)}
    assert found["disagreeing"][0]["image"] in photos
    assert {neighbour["image"] for neighbour in found["disagreeing"][0]["neighbours"]} <= photos
    assert found["recall"]["value"] == 1.0
    assert found["drift"] is None
    page = (tmp_path / "health.html").read_text()
    assert wrong in page
    assert found["disagreeing"][0]["image"] in page
    assert page.count("background-image:url(data:image/jpeg") >= 4
    assert "Content-Security-Policy" in page
    assert "<script" not in page
    assert "contradicted labels" in run("db", "health", "pets").out


def test_prune_shows_asks_and_deletes(home: Path, workshop: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    wrong = mislabel(home, workshop)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    refused = run("db", "prune", "pets", "--disagreeing")
    assert refused.code == 1
    assert wrong in refused.err
    assert str(workshop / "photos" / "red") in refused.err
    assert run("db", "info", "pets", "--json").json["segments"] == 12
    done = run("db", "prune", "pets", "--disagreeing", "--yes", "--json").json
    assert (done["changed"], done["segments"]) == (1, 11)
    assert [item["segment_id"] for item in done["deleted"]] == [wrong]
    assert done["deleted"][0]["image"].startswith(str(workshop / "photos" / "red"))
    assert run("db", "prune", "pets", "--disagreeing", "--yes", "--json").json["changed"] == 0
    assert run("db", "prune", "pets", "--json").error["code"] == "E120"


def test_suggest_names_class_reason_and_remedy(home: Path, run: Run) -> None:
    found = {item["name"]: item for item in run("db", "suggest", "pets", "--json").json}
    assert set(found) == {"red", "green", "blue"}
    assert found["red"]["reasons"][0] == "only 4 exemplars"
    assert found["red"]["additions"][0] == "6 exemplars or more"
    assert "only 4 exemplars" in run("db", "suggest", "pets").out


def test_drift_compares_results_with_the_database(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    photos = [workshop / f"photos/{colour}/{n}.png" for colour in ("red", "green", "blue") for n in range(1)]
    for number, photo in enumerate(photos):
        words = ["segment", photo, "--db", "pets", "--out", tmp_path / "out" / str(number), "--formats", "segments"]
        assert run(*words, "--device", "cpu").code == 0
    drift = run("db", "health", "pets", "--queries", tmp_path / "out", "--json").json["drift"]
    assert drift["queries"] >= 3
    assert 0 <= drift["far"] <= 1
    assert "drift" in run("db", "health", "pets", "--queries", tmp_path / "out").out
    (tmp_path / "empty").mkdir()
    assert run("db", "health", "pets", "--queries", tmp_path / "empty", "--json").error["code"] == "E319"
    document = next((tmp_path / "out").rglob("segments.json"))
    document.write_text(document.read_text().replace("feature_space", "other_space"))
    assert run("db", "health", "pets", "--queries", tmp_path / "out", "--json").error["code"] == "E319"
