"""`retclip rescore`: the files of a kept run follow the database, and are those of a full run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Run = Any
FORMATS = "panoptic,coco,overlay,segments,semantic,instances"


@pytest.fixture
def kept(home: Path, workshop: Path, street: Path, run: Run, tmp_path: Path) -> Path:
    """A kept run of the street (red, blue) and a green photo."""
    words = ["--db", "pets", "--formats", FORMATS, "--out", tmp_path / "kept-run"]
    assert run("segment", street, workshop / "photos" / "green" / "0.png", *words, "--keep").code == 0
    return tmp_path / "kept-run"


def files(folder: Path) -> dict[str, Any]:
    """Every result by its path; documents without times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith("kept/"):
            found[name] = json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
    for image in found["run.json"]["images"]:
        del image["seconds"]
    return found


@pytest.mark.parametrize(
    "change", [["delete", "pets", "--label", "red", "--yes"], ["relabel", "pets", "red", "crimson"]]
)
def test_after_a_change_all_files_are_those_of_a_full_run(
    kept: Path, workshop: Path, street: Path, run: Run, tmp_path: Path, change: list[str]
) -> None:
    before = files(kept)
    assert run("db", *change).code == 0
    outcome = run("rescore", kept, "--json")
    assert outcome.code == 0
    document = outcome.json
    assert (document["schema"], document["pictures"], document["changed"]) == ("retclip.rescore/1", 2, 1)
    assert document["images"][0]["image"] == str(street)
    assert {move["before"] for move in document["images"][0]["regions"]} == {"red"}
    assert document["classes"]["red"]["after"] == 0 < document["classes"]["red"]["before"]
    assert document["run"]["db"][0]["version"] == 3
    partly = files(kept)
    assert partly["0/segments.json"] == before["0/segments.json"]
    assert run("rescore", kept, "--json").json["changed"] == 0
    assert run("rescore", kept, "--all", "--json").json["written"] == 2
    words = ["--db", "pets", "--formats", FORMATS, "--out", tmp_path / "fresh"]
    assert run("segment", street, workshop / "photos" / "green" / "0.png", *words).code == 0
    fresh = files(tmp_path / "fresh")
    assert files(kept) == fresh
    for name in ("street/panoptic.png", "street/segments.json", "panoptic/street.png", "panoptic.json"):
        assert partly[name] == fresh[name]


def test_a_dry_run_writes_nothing_and_remembers_nothing(kept: Path, run: Run) -> None:
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    assert run("db", "delete", "pets", "--label", "red", "--yes").code == 0
    for _ in range(2):
        outcome = run("rescore", kept, "--dry-run")
        assert "1 of 2 pictures changed under pets@3, 0 written" in outcome.err
        assert "red -> " in outcome.err
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before
    assert run("rescore", kept, "--db", "pets@2", "--json").json["changed"] == 0


def test_settings_classes_and_databases_may_be_others(kept: Path, run: Run) -> None:
    few = run("rescore", kept, "--classes", "green,blue", "--set", "retrieval.k=1", "--json").json
    assert few["classes"]["red"]["after"] == 0
    assert few["run"]["retrieval"]["k"] == 1
    assert run("rescore", kept, "--set", "encoder.short_side=32", "--json").error["code"] == "E342"
    assert run("rescore", kept, "--classes", "chair", "--json").error["code"] == "E309"
    assert run("rescore", kept, "--formats", "html", "--json").error["code"] == "E132"
    assert run("rescore", kept / "street", "--json").error["code"] == "E340"


def test_no_network_is_loaded(kept: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("obtain_models", "_load_encoder", "make_encoder"):
        monkeypatch.setattr(f"retclip.assembly.{name}", None)
    assert run("rescore", kept, "--all").code == 0


def test_another_photo_is_not_drawn_over(kept: Path, workshop: Path, run: Run) -> None:
    labels = json.loads((kept / "kept" / "labels.json").read_text())
    for record in labels.values():
        record["path"] = str(kept / "other.png")
    (kept / "kept" / "labels.json").write_text(json.dumps(labels))
    assert run("rescore", kept, "--all", "--json").error["code"] == "E111"
    Image.new("RGB", (4, 4)).save(kept / "other.png")
    assert run("rescore", kept, "--all", "--json").error["code"] == "E343"
    assert run("rescore", kept, "--all", "--formats", "panoptic,segments").code == 0


def test_damaged_indices_are_named_and_written_again(kept: Path, run: Run) -> None:
    (kept / "panoptic.json").write_text("{")
    assert run("rescore", kept, "--json").error["code"] == "E343"
    assert run("rescore", kept, "--all").code == 0
    assert run("rescore", kept).code == 0


def test_a_single_picture_has_no_index(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    assert run("segment", street, "--db", "pets", "--keep").code == 0
    assert run("db", "delete", "pets", "--label", "red", "--yes").code == 0
    assert run("rescore", tmp_path / "out", "--json").json["written"] == 1
    assert not (tmp_path / "out" / "panoptic.json").exists()


def test_an_error_is_all_that_json_says_on_stderr(kept: Path, run: Run) -> None:
    facts = json.loads((kept / "kept" / "run.json").read_text())
    facts["formats"] = ["html"]
    (kept / "kept" / "run.json").write_text(json.dumps(facts))
    outcome = run("rescore", kept, "--db", "nothing", "--json")
    assert (outcome.code, json.loads(outcome.err)["error"]["code"]) == (5, "E306")
    assert "report.html still shows" in run("rescore", kept).err
