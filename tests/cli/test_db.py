"""`retclip db`: looking into databases and correcting them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retclip.shards import Database

Run = Any


def test_list_names_every_database_and_its_state(home: Path, run: Run) -> None:
    shutil.copytree(home / "db" / "pets.retdb", home / "db" / "broken.retdb")
    next((home / "db" / "broken.retdb" / "manifests").glob("*2.json")).write_text("{}")
    next((home / "db" / "broken.retdb" / "manifests").glob("*1.json")).write_text("{}")
    rows = {row["name"]: row for row in run("db", "list", "--json").json}
    assert rows["pets"] == {
        "name": "pets", "version": 2, "segments": 12, "classes": 3, "encoder": "timm/test_efficientnet", "state": "ok",
    }  # fmt: skip
    assert rows["broken"]["state"].startswith("E30")
    table = run("db", "list").out
    assert "pets" in table
    assert "broken" in table


def test_without_databases_list_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "nowhere"))
    assert run("db", "list", "--json").json == []
    assert "index build" in run("db", "list").out


def test_info_has_what_the_manual_promises(home: Path, run: Run) -> None:
    facts = run("db", "info", "pets", "--json").json
    assert (facts["segments"], facts["classes"], facts["images"], facts["version"]) == (12, 3, 12, 2)
    database = Database.open(home / "db" / "pets.retdb")
    assert facts["feature_space"]["fingerprint"] == database.space.fingerprint
    assert facts["feature_space"]["encoder"] == "timm/test_efficientnet"
    assert facts["content_hash"] == database.content_hash()
    assert facts["key_transform"] == "centre"
    assert facts["sources"] == {"folder": 12}
    assert [entry["operation"] for entry in facts["history"]] == ["create", "build"]
    text = run("db", "info", "pets").out
    assert "12" in text
    assert database.space.fingerprint in text
    old = run("db", "info", "pets@1", "--json").json
    assert (old["version"], old["segments"]) == (1, 0)
    assert run("db", "info", home / "db" / "pets.retdb", "--json").json == facts


def test_verify_tells_whole_from_damaged(home: Path, run: Run) -> None:
    whole = run("db", "verify", "pets", "--deep")
    assert whole.code == 0
    assert "whole" in whole.out
    assert run("db", "verify", "pets", "--json").json["ok"] is True
    victim = next((home / "db" / "pets.retdb" / "shards").glob("*/vectors.*"))
    data = bytearray(victim.read_bytes())
    data[11] ^= 1
    victim.write_bytes(bytes(data))
    damaged = run("db", "verify", "pets", "--deep", "--json")
    assert damaged.code == 5
    assert damaged.json["ok"] is False
    assert damaged.error["code"] == "E303"
    assert victim.name in json.dumps(damaged.json["problems"])
    text = run("db", "verify", "pets", "--deep")
    assert text.code == 5
    assert victim.name in text.out
    victim.write_bytes(bytes(data)[:-2])
    assert run("db", "info", "pets").code == 5
    assert run("segment", __file__, "--db", "pets").code == 5


def test_classes_and_what_a_list_lacks(home: Path, run: Run) -> None:
    rows = run("db", "classes", "pets", "--json").json
    assert [(row["name"], row["count"]) for row in rows] == [("blue", 4), ("green", 4), ("red", 4)]
    assert "blue" in run("db", "classes", "pets").out
    assert run("db", "classes", "pets", "--missing-for", "red, zebra", "--json").json == ["zebra"]
    assert "None is missing" in run("db", "classes", "pets", "--missing-for", "red").out


def test_search_finds_the_photo_itself_first(home: Path, workshop: Path, run: Run) -> None:
    photo = workshop / "photos" / "green" / "2.png"
    hits = run("db", "search", "pets", "--image", photo, "-k", "3", "--json").json
    assert len(hits) == 3
    assert hits[0]["image_uri"] == str(photo)
    assert hits[0]["distance"] < 1e-3
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    assert hits[0]["label"] == "green"
    assert "green" in run("db", "search", "pets", "--image", photo).out
    assert len(run("db", "search", "pets", "--image", photo, "-k", "99", "--json").json) == 12


def test_a_region_is_a_box_or_a_mask(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    right = run("db", "search", "pets", "--image", street, "--box", "100,0,192,96", "-k", "1", "--json").json
    assert right[0]["label"] == "blue"
    mask = np.zeros((96, 192), np.uint8)
    mask[:, 100:] = 9
    Image.fromarray(mask).save(tmp_path / "mask.png")
    same = run("db", "search", "pets", "--image", street, "--mask", tmp_path / "mask.png", "-k", "1", "--json").json
    assert same == right


@pytest.mark.parametrize(
    "box", ["1,2,3", "a,b,c,d", "500,0,600,50", "9,9,9,9", "nan,0,1,1", "inf,0,1,1", "20,0,10,50", ""]
)
def test_impossible_boxes_are_input_errors(home: Path, street: Path, run: Run, box: str) -> None:
    outcome = run("db", "search", "pets", "--image", street, "--box", box, "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E125")


def test_impossible_masks_and_pictures_are_input_errors(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    for name, size, value in (("small", (5, 5), 1), ("blank", (96, 192), 0)):
        Image.fromarray(np.full(size, value, np.uint8)).save(tmp_path / f"{name}.png")
        outcome = run("db", "search", "pets", "--image", street, "--mask", tmp_path / f"{name}.png", "--json")
        assert (outcome.code, outcome.error["code"]) == (3, "E125")
    (tmp_path / "cut.png").write_bytes(street.read_bytes()[:100])
    assert run("db", "search", "pets", "--image", tmp_path / "cut.png", "--json").error["code"] == "E114"
    assert run("db", "search", "pets", "--image", tmp_path / "none.png", "--json").error["code"] == "E111"


def test_searching_an_empty_version_says_that_it_is_empty(home: Path, street: Path, run: Run) -> None:
    outcome = run("db", "search", "pets@1", "--image", street, "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "E302")


def test_the_log_lists_versions_and_any_of_them_can_come_back(home: Path, run: Run) -> None:
    before = run("db", "info", "pets", "--json").json
    run("db", "delete", "pets", "--label", "red", "--yes")
    run("db", "delete", "pets", "--label", "blue", "--yes")
    back = run("db", "restore", "pets", str(before["version"]), "--json").json
    assert back["segments"] == before["segments"]
    log = run("db", "log", "pets", "--json").json
    assert [entry["operation"] for entry in log][-3:] == ["delete", "delete", "restore"]
    assert run("db", "info", "pets", "--json").json["content_hash"] == before["content_hash"]


def test_the_key_transform_is_a_version_too(home: Path, run: Run) -> None:
    assert run("db", "transform", "pets", "whiten").code == 0
    assert run("db", "info", "pets", "--json").json["key_transform"] == "whiten"
    assert run("db", "transform", "pets", "bleach").code == 3


# Corrections.


def test_delete_and_undo_make_versions_and_lose_nothing(home: Path, run: Run) -> None:
    before = run("db", "info", "pets", "--json").json
    gone = run("db", "delete", "pets", "--label", "red", "--yes", "--json").json
    assert gone == {"database": "pets", "version": 3, "changed": 4, "segments": 8}
    assert [row["name"] for row in run("db", "classes", "pets", "--json").json] == ["blue", "green"]
    assert run("db", "info", "pets@2", "--json").json["content_hash"] == before["content_hash"]
    back = run("db", "undo", "pets", "--json").json
    assert (back["version"], back["segments"]) == (4, 12)
    assert run("db", "info", "pets", "--json").json["content_hash"] == before["content_hash"]
    assert run("db", "info", "pets@3", "--json").json["segments"] == 8


def test_delete_by_ids_and_source(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    hits = run("db", "search", "pets", "--image", workshop / "photos/red/0.png", "-k", "2", "--json").json
    (tmp_path / "ids.txt").write_text("\n".join(hit["segment_id"] for hit in hits))
    assert run("db", "delete", "pets", "--ids", tmp_path / "ids.txt", "--yes", "--json").json["changed"] == 2
    (tmp_path / "unknown.txt").write_text("00000000000000ff\n")
    for words in (
        ["delete", "pets", "--yes", "--ids", tmp_path / "unknown.txt"],
        ["delete", "pets", "--yes", "--source", "nosuch"],
        ["relabel", "pets", "red", "rose", "--ids", tmp_path / "unknown.txt"],
    ):
        nothing = run("db", *words, "--json")
        assert (nothing.code, nothing.error["code"]) == (5, "E317")
    assert "there are: folder" in run("db", "delete", "pets", "--source", "nosuch", "--yes").err
    assert run("db", "info", "pets", "--json").json["version"] == 3
    rest = run("db", "delete", "pets", "--source", "folder", "--yes", "--json").json
    assert (rest["changed"], rest["segments"]) == (10, 0)


@pytest.mark.parametrize("text", ["", "red", "-5", "0x", "1" * 17, "\udcff"])
def test_lists_that_hold_no_ids_are_refused(home: Path, run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "ids.txt").write_bytes(text.encode(errors="surrogateescape"))
    for words in (["delete", "pets", "--yes"], ["relabel", "pets", "red", "rose"]):
        outcome = run("db", *words, "--ids", tmp_path / "ids.txt", "--json")
        assert (outcome.code, outcome.error["code"]) == (3, "E124")


def test_delete_asks_first(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    for answer, changed in (("n\n", False), ("", False), ("y\n", True)):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        outcome = run("db", "delete", "pets", "--label", "red")
        assert "Delete 4 of 12 segments" in outcome.err
        assert (outcome.code == 0) == changed
        assert run("db", "info", "pets", "--json").json["version"] == 2 + changed


def test_relabel_renames_merges_and_moves(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    assert run("db", "relabel", "pets", "red", "crimson", "--json").json["changed"] == 4
    rows = {row["name"]: row for row in run("db", "classes", "pets", "--json").json}
    assert rows["crimson"]["aliases"] == ["red"]
    merged = run("db", "relabel", "pets", "red", "blue", "--json").json
    assert merged["changed"] == 4
    rows = {row["name"]: row["count"] for row in run("db", "classes", "pets", "--json").json}
    assert rows == {"blue": 8, "green": 4}
    hits = run("db", "search", "pets", "--image", workshop / "photos/green/0.png", "-k", "1", "--json").json
    (tmp_path / "ids.txt").write_text(hits[0]["segment_id"])
    moved = run("db", "relabel", "pets", "green", "lime", "--ids", tmp_path / "ids.txt", "--json").json
    assert moved["changed"] == 1
    rows = {row["name"]: row["count"] for row in run("db", "classes", "pets", "--json").json}
    assert rows == {"blue": 8, "green": 3, "lime": 1}
    for _ in range(3):
        assert run("db", "undo", "pets").code == 0


def test_relabel_that_changes_nothing_makes_no_version(home: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("1")
    assert "no segment of 'red'" in run("db", "relabel", "pets", "red", "red").out
    assert run("db", "relabel", "pets", "red", "blue", "--ids", tmp_path / "ids.txt", "--json").error["code"] == "E317"
    assert run("db", "info", "pets", "--json").json["version"] == 2


def test_undo_of_nothing_is_refused(workshop: Path, home: Path, run: Run) -> None:
    database = Database.open(home / "db" / "pets.retdb")
    Database.create(home / "db" / "fresh.retdb", database.space, {})
    outcome = run("db", "undo", "fresh", "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "E306")


def test_names_with_markup_are_shown_as_they_are(home: Path, run: Run) -> None:
    assert run("db", "relabel", "pets", "red", "[bold]rose[/] <b>", "--json").code == 0
    assert "[bold]rose[/] <b>" in run("db", "classes", "pets").out
    assert run("db", "info", "pets").code == 0


def test_info_shows_the_networks_that_made_a_database(home: Path, run: Run) -> None:
    record = {"role": "masker", "name": "facebook/sam-vit-base", "license": "Apache-2.0", "sha256": "ab" * 32}
    database = Database.open(home / "db" / "pets.retdb")
    with database.write("test", "test") as transaction:
        transaction.record_models([record, {"role": "detector"}])
        transaction.delete(labels=["red"])
        transaction.commit()
    assert record in run("db", "info", "pets", "--json").json["models"]
    text = run("db", "info", "pets").out
    assert "masker facebook/sam-vit-base, Apache-2.0, sha256 abababababab" in text
    assert "detector unknown" in text


def test_a_damaged_newest_version_is_shown_everywhere(home: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    assert run("db", "relabel", "pets", "red", "crimson").code == 0
    (home / "db" / "pets.retdb" / "manifests" / "000000000003.json").write_text("{}")
    assert "version 3 is damaged, version 2 is served" in run("db", "list", "--json").json[0]["state"]
    assert run("db", "info", "pets", "--json").json["passed_over"] == [3]
    assert "version 3 is damaged" in run("db", "info", "pets").out
    assert "version 3 is damaged" in run("doctor", "--db", "pets", "--json").out
    caplog.clear()
    run("db", "log", "pets")
    assert "passed over" in caplog.text
    caplog.clear()
    assert run("db", "copy", "pets", "twin", "--quiet").code == 0
    assert not caplog.text
    refused = run("db", "delete", "pets", "--label", "blue", "--yes", "--json")
    assert (refused.code, refused.error["code"]) == (5, "E316")
    assert run("db", "restore", "pets", "2", "--json").json == {"database": "pets", "version": 4, "segments": 12}
    undone = run("db", "undo", "pets", "--json")
    assert undone.code == 0
    assert "changed" not in undone.json
