"""`retclip segment`: results, formats, bad pictures, and a class that is forgotten and learnt again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retclip.core.panoptic import rgb_to_ids
from tests.absence import require_library
from tests.cli.conftest import save_bomb, save_photos

Run = Any


def labels(document: dict[str, Any]) -> set[str]:
    return {segment["label"] for image in document["images"] for segment in image["segments"]}


def test_both_halves_of_the_street_are_recognised(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    outcome = run("segment", street, "--db", "pets", "--json")
    assert outcome.code == 0
    document = outcome.json
    assert document["schema"] == "retclip.segment/1"
    assert document["failures"] == []
    assert document["run"]["db"][0]["version"] == 2
    assert labels(document) == {"red", "blue"}
    for segment in document["images"][0]["segments"]:
        assert 0 < segment["score"] <= 1
        assert segment["decided_by"] == "retrieval"
        assert segment["shares"]["retrieval"] == pytest.approx(1.0)
        assert segment["neighbors"][0]["label"] == segment["label"]
    ids = rgb_to_ids(np.asarray(Image.open(tmp_path / "out" / "street" / "panoptic.png").convert("RGB")))
    assert ids.shape == (96, 192)
    names = {segment["id"]: segment["label"] for segment in document["images"][0]["segments"]}
    assert names[int(ids[48, 20])] == "red"
    assert names[int(ids[48, 170])] == "blue"
    assert "gamma is 1" in outcome.err


def test_every_format_is_written_and_listed(home: Path, street: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    formats = "panoptic,coco,overlay,segments,html,semantic,instances"
    outcome = run("segment", street, "--db", "pets", "--formats", formats, "--out", tmp_path / "o", "--json")
    assert outcome.code == 0
    files = [Path(path) for path in outcome.json["images"][0]["files"]]
    assert len(files) >= 6
    assert all(path.stat().st_size > 0 for path in files)
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())
    page = (tmp_path / "o" / "report.html").read_text()
    assert "data:image" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    unknown = run("segment", street, "--db", "pets", "--formats", "panoptic,gif", "--json")
    assert (unknown.code, unknown.error["code"]) == (3, "E132")


def test_explain_prints_the_reasons(home: Path, street: Path, run: Run) -> None:
    outcome = run("segment", street, "--db", "pets", "--explain")
    assert "red" in outcome.out
    assert "retrieval" in outcome.out
    assert "street.png" in outcome.out


def test_a_class_is_forgotten_and_learnt_again(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    """Deleted, it never appears; added from a folder, it appears again; every version stays readable."""
    assert labels(run("segment", street, "--db", "pets", "--json").json) == {"red", "blue"}
    assert run("db", "delete", "pets", "--label", "red", "--yes").code == 0
    without = run("segment", street, "--db", "pets", "--json").json
    assert "red" not in labels(without)
    assert without["run"]["db"][0]["version"] == 3
    assert "red" not in json.dumps([image["segments"] for image in without["images"]])
    asked = run("segment", street, "--db", "pets", "--classes", "red, green, blue", "--json")
    assert "red" not in labels(asked.json)
    nothing = run("segment", street, "--db", "pets", "--classes", "red", "--json")
    assert (nothing.code, nothing.error["code"]) == (5, "E309")
    assert "add-classes" in nothing.error["hint"]
    album = save_photos(tmp_path / "album", ("red",), first=50)
    taught = run("index", "add-classes", "--db", "pets", "--classes", "red", "--images", album, "--json")
    assert taught.json["classes"] == {"red": 4}
    again = run("segment", street, "--db", "pets", "--json").json
    assert labels(again) == {"red", "blue"}
    assert again["run"]["db"][0]["version"] == 4
    old = {version: run("segment", street, "--db", f"pets@{version}", "--json").json for version in (2, 3)}
    assert labels(old[2]) == {"red", "blue"}
    assert "red" not in labels(old[3])
    assert [document["run"]["db"][0]["version"] for document in old.values()] == [2, 3]


def test_relabelled_classes_carry_their_new_name(home: Path, street: Path, run: Run) -> None:
    assert run("db", "relabel", "pets", "red", "crimson").code == 0
    assert labels(run("segment", street, "--db", "pets", "--json").json) == {"crimson", "blue"}
    assert labels(run("segment", street, "--db", "pets", "--classes", "red,blue", "--json").json) == {"red", "blue"}


def test_proposals_by_name_are_those_of_an_evaluation(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    assert run("segment", street, "--db", "pets", "--proposals", "preset").code == 0
    assert run("segment", street, "--db", "pets", "--proposals", "given", "--json").error["code"] == "E150"


def test_the_same_picture_twice_is_the_same_result(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    found = []
    for folder in ("a", "b"):
        assert run("segment", street, "--db", "pets", "--out", tmp_path / folder).code == 0
        found.append((tmp_path / folder / "street" / "panoptic.png").read_bytes())
    assert found[0] == found[1]


@pytest.fixture
def pictures(tmp_path: Path, street: Path) -> Path:
    """Unusual but fine pictures, and four that cannot be used."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    image = Image.open(street).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "rotated.jpg", exif=exif)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    image.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:400])
    (folder / "text.png").write_text("no picture at all")
    (folder / "empty.jpg").write_bytes(b"")
    save_bomb(folder / "bomb.png")
    (folder / "notes.txt").write_text("not looked at")
    return folder


FAILING = {"cut.jpg": "E114", "text.png": "E112", "empty.jpg": "E112", "bomb.png": "E113"}


def test_bad_pictures_are_named_and_the_others_done(home: Path, pictures: Path, run: Run, tmp_path: Path) -> None:
    outcome = run("segment", pictures, "--db", "pets", "--formats", "panoptic,coco,html", "--json")
    assert outcome.code == 6
    assert outcome.error["code"] == "E601"
    document = outcome.json
    assert {Path(f["image"]).name: f["code"] for f in document["failures"]} == FAILING
    assert {image["image"]["file"] for image in document["images"]} == {
        "rotated.jpg", "cmyk.jpg", "palette.png", "sixteen.png", "dot.png"
    }  # fmt: skip
    assert Image.open(tmp_path / "out" / "rotated" / "panoptic.png").size == (96, 192)
    assert run("segment", pictures, "--db", "pets", "--max-failures", "4").code == 0


def test_when_every_picture_fails_nothing_is_invented(home: Path, pictures: Path, run: Run) -> None:
    for words in (["--formats", "html"], []):
        outcome = run("segment", pictures / "cut.jpg", pictures / "text.png", "--db", "pets", *words, "--json")
        assert outcome.code == 6
        assert outcome.json["images"] == []
        assert len(outcome.json["failures"]) == 2


def test_equal_stems_are_refused_by_name(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "x/b.png"):
        (tmp_path / "many" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(street, tmp_path / "many" / name)
    many = tmp_path / "many"
    outcome = run("segment", many / "a.png", many / "b.png", many / "x" / "b.png", "--db", "pets", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E133")
    assert str(many / "b.png") in outcome.error["message"]
    assert str(many / "x" / "b.png") in outcome.error["message"]
    twice = run("segment", many / "a.png", many / "a.png", "--db", "pets", "--json")
    assert len(twice.json["images"]) == 1


def test_pictures_come_from_folders_and_patterns(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    for name in ("one.png", "two.png", ".hidden.png"):
        shutil.copy(street, folder / name)
    for argument in (folder, f"{folder}/*.png"):
        images = run("segment", argument, "--db", "pets", "--json").json["images"]
        assert [image["image"]["file"] for image in images] == ["one.png", "two.png"]


def test_masks_may_be_given(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    ids = np.zeros((96, 192), np.uint8)
    ids[:, :96], ids[:, 96:] = 5, 7
    (tmp_path / "masks").mkdir()
    Image.fromarray(ids).save(tmp_path / "masks" / "street.png")
    document = run("segment", street, "--db", "pets", "--proposals", tmp_path / "masks", "--json").json
    assert [(s["label"], s["area"]) for s in document["images"][0]["segments"]] == [("red", 9216), ("blue", 9216)]
    (tmp_path / "masks" / "street.png").unlink()
    missing = run("segment", street, "--db", "pets", "--proposals", tmp_path / "masks", "--json")
    assert (missing.code, missing.json["failures"][0]["code"]) == (6, "E151")
    nowhere = run("segment", street, "--db", "pets", "--proposals", tmp_path / "none", "--json")
    assert (nowhere.code, nowhere.error["code"]) == (3, "E150")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--alpha", "1.5"), ("--beta", "-0.1"), ("--gamma", "nan"), ("--rule", "vote"), ("--score-threshold", "2"),
     ("--gamma", "inf")],
)  # fmt: skip
def test_settings_on_the_command_line_are_checked_like_a_preset(
    home: Path, street: Path, run: Run, option: str, value: str
) -> None:
    outcome = run("segment", street, "--db", "pets", f"{option}={value}", "--json")
    assert outcome.code == 3
    assert outcome.error["code"] in ("E144", "E145")
    assert option.removeprefix("--").replace("-", "_") in outcome.error["message"]


def test_settings_on_the_command_line_reach_the_result(home: Path, street: Path, run: Run) -> None:
    words = ["--rule", "minmax", "-k", "3", "--gamma", "0.5", "--score-threshold", "1"]
    document = run("segment", street, "--db", "pets", *words, "--json").json
    assert (document["run"]["retrieval"]["rule"], document["run"]["retrieval"]["k"]) == ("minmax", 3)
    assert document["run"]["fusion"]["gamma"] == 0.5
    assert document["images"][0]["segments"] == []


def test_an_unusable_device_and_output_folder_are_input_errors(
    home: Path, street: Path, run: Run, tmp_path: Path
) -> None:
    device = run("segment", street, "--db", "pets", "--device", "abacus", "--json")
    assert (device.code, device.error["code"]) == (3, "E148")
    (tmp_path / "file").write_text("in the way")
    out = run("segment", street, "--db", "pets", "--out", tmp_path / "file", "--json")
    assert (out.code, out.error["code"]) == (3, "E131")


def test_a_preset_of_another_feature_space_is_refused(
    home: Path, workshop: Path, street: Path, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "other.toml").write_text((workshop / "preset.toml").read_text().replace("stride = 16", "stride = 32"))
    shutil.copy(workshop / "weights.safetensors", tmp_path)
    outcome = run("segment", street, "--db", "pets", "--preset", tmp_path / "other.toml", "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "E301")
    assert "stride: 16 != 32" in outcome.error["why"]


def test_an_empty_version_says_what_to_do(home: Path, street: Path, run: Run) -> None:
    outcome = run("segment", street, "--db", "pets@1", "--json")
    assert (outcome.code, outcome.error["code"]) == (5, "E302")


def test_quiet_keeps_stderr_for_errors(home: Path, street: Path, run: Run) -> None:
    outcome = run("segment", street, "--db", "pets", "--quiet", "--json")
    assert outcome.err == ""
    assert outcome.json["images"]


def test_several_databases_are_asked_as_one(home: Path, preset: Path, street: Path, run: Run, tmp_path: Path) -> None:
    own = save_photos(tmp_path / "own", ("red",), count=2, first=50)
    words = ["--source", "folder", "--root", own, "--db", "mine", "--preset", preset, "--use-boxes", "--quiet"]
    assert run("index", "build", *words).code == 0

    def origins(*options: str) -> dict[str, set[str]]:
        outcome = run("segment", street, "--db", "mine,pets", *options, "--out", tmp_path / "out", "--json")
        assert outcome.code == 0, outcome.err
        assert [layer["name"] for layer in outcome.json["run"]["db"]] == ["mine", "pets"]
        found: dict[str, set[str]] = {}
        for segment in outcome.json["images"][0]["segments"]:
            for neighbor in segment["neighbors"]:
                found.setdefault(neighbor["label"], set()).add(neighbor["database"])
        return found

    first = origins()
    assert first["red"] == {"mine@2"}, "the first layer answers for its classes alone"
    assert first["blue"] == {"pets@2"}
    assert origins("--layers", "merged")["red"] == {"mine@2", "pets@2"}
    assert run("segment", street, "--db", "mine,pets", "--layers", "both", "--json").error["code"] == "E120"


def test_a_vector_engine_answers_in_place_of_a_database(home: Path, street: Path, run: Run, tmp_path: Path) -> None:
    require_library("lancedb", "lancedb")
    assert run("db", "export", "pets", tmp_path / "lance", "--to", "lancedb").code == 0
    words = ["segment", street, "--classes", "red,blue", "--out", tmp_path / "out", "--json"]
    own, engine = run(*words, "--db", "pets"), run(*words, "--db", f"lancedb:{tmp_path / 'lance'}")
    assert engine.code == 0, engine.err
    assert labels(engine.json) == labels(own.json) == {"red", "blue"}
    refused = run(*words, "--db", f"lancedb:{tmp_path / 'lance'}", "--keep")
    assert (refused.code, refused.error["code"]) == (3, "E120")
