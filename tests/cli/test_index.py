"""`retclip index`: building, teaching, resuming, and bad pictures."""

from __future__ import annotations

import errno
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retclip.shards import Database, verify
from tests.cli.conftest import save_bomb, save_photos, textured

Run = Any


def build_words(preset: Path, root: Path, db: str = "new") -> list[Any]:
    return ["index", "build", "--source", "folder", "--root", root, "--db", db, "--preset", preset, "--use-boxes"]


def test_a_build_reports_what_it_did(home: Path, workshop: Path, preset: Path, run: Run, tmp_path: Path) -> None:
    words = [*build_words(preset, workshop / "photos"), "--report", tmp_path / "report.json", "--json"]
    outcome = run(*words)
    assert outcome.code == 0
    report = outcome.json
    assert (report["images"], report["added"], report["version"]) == (12, 12, 2)
    assert report["classes"] == {"red": 4, "green": 4, "blue": 4}
    assert report["failures"] == []
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert "index: 12/12 images" in outcome.err
    again = run(*words).json
    assert (again["added"], again["known"], again["version"]) == (0, 12, 2)
    assert again["content_hash"] == report["content_hash"]


def test_the_table_names_the_same_numbers(home: Path, workshop: Path, preset: Path, run: Run) -> None:
    outcome = run(*build_words(preset, workshop / "photos"))
    assert "segments added       12" in outcome.out
    assert "new version 2" in outcome.out


def test_quiet_says_nothing_but_the_result(home: Path, workshop: Path, preset: Path, run: Run) -> None:
    outcome = run(*build_words(preset, workshop / "photos"), "--quiet", "--json")
    assert outcome.err == ""
    assert outcome.json["added"] == 12


def test_columns_and_numbered_classes_are_named(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    """The options that the readers' own errors advise."""
    photo = next((workshop / "photos" / "red").iterdir())
    shutil.copy(photo, tmp_path / photo.name)
    (tmp_path / "photos.csv").write_text(f"photo,what,words\n{photo.name},red,a red thing\n")
    build = ["index", "build", "--dry-run", "--json", "--root"]
    table = [*build, tmp_path, "--source", "table", "--path-column", "photo", "--labels-column", "what"]
    assert run(*table).json["images_by_class"] == {"red": 1}
    assert run(*table, "--caption-column", "words").json["captioned"] == 1
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        archive.add(photo, f"a{photo.suffix}")
        number = tarfile.TarInfo("a.cls")
        number.size = 1
        archive.addfile(number, io.BytesIO(b"1"))
    shards = [*build, tmp_path / "shard.tar", "--source", "webdataset"]
    assert "--class-names" in run(*shards).error["hint"]
    assert run(*shards, "--class-names", "green,red").json["images_by_class"] == {"red": 1}
    photos = [*build, workshop / "photos", "--source", "folder"]
    assert run(*photos, "--class-names", "green,red").error["code"] == "E120"
    assert run(*photos, "--labels-column", "what").error["code"] == "E120"


@pytest.mark.parametrize("labels", ["machine:0", "machine:2", "machine:much", "machine", "machine:0.8", "captions"])
def test_labels_that_cannot_be_had_are_told(home: Path, workshop: Path, run: Run, labels: str) -> None:
    words = ["index", "build", "--source", "folder", "--root", workshop / "photos", "--labels", labels, "--json"]
    assert run(*words).error["code"] == "E120"


def test_a_dry_run_loads_and_writes_nothing(home: Path, workshop: Path, run: Run) -> None:
    outcome = run("index", "build", "--source", "folder", "--root", workshop / "photos", "--dry-run", "--json")
    assert outcome.code == 0
    assert outcome.json["images"] == 12
    assert "Nothing was written" in outcome.err
    assert [path.name for path in (home / "db").iterdir()] == ["pets.retdb"]
    table = run("index", "build", "--source", "folder", "--root", workshop / "photos", "--dry-run")
    assert "12" in table.out
    words = ["index", "build", "--source", "folder", "--root", workshop / "photos", "--classes", "red", "--dry-run"]
    asked = run(*words, "--json").json
    assert (asked["images_by_class"], asked["unmapped"]) == ({"red": 4}, {"blue": 4, "green": 4})
    assert {tuple(sample["labels"]) for sample in asked["samples"]} == {("red",)}


def test_without_a_detector_regions_must_be_annotated(home: Path, photos_table: Path, preset: Path, run: Run) -> None:
    words = ["index", "build", "--source", "table", "--root", photos_table, "--preset", preset]
    outcome = run(*words, "--json")
    assert outcome.code == 3
    assert outcome.error["code"] == "E149"
    both = run(*words, "--use-masks", "--use-boxes", "--json")
    assert both.error["code"] == "E120"
    boxes = run(*words, "--use-boxes", "--json")
    assert boxes.json["classes"] == {"car": 1}
    stored = [segment for _, _, segment in Database.open(home / "db" / "table.retdb").iter_segments()]
    assert stored[0].box == (4.0, 4.0, 40.0, 30.0)


@pytest.fixture
def photos_table(tmp_path: Path) -> Path:
    Image.fromarray(textured("red", 3)).save(tmp_path / "a.png")
    table = tmp_path / "boxes.jsonl"
    row = {"path": "a.png", "boxes": [[4, 4, 40, 30, "car"]]}
    table.write_text(json.dumps(row) + "\n")
    return table


def test_classes_and_caps_narrow_a_build(home: Path, workshop: Path, preset: Path, run: Run) -> None:
    words = build_words(preset, workshop / "photos")
    report = run(*words, "--classes", "red, blue", "--per-class-cap", "3", "--json").json
    assert report["classes"] == {"red": 3, "blue": 3}
    assert report["capped"] == 2
    none = run(*build_words(preset, workshop / "photos", "other"), "--classes", "zebra", "--json")
    assert (none.code, none.error["code"]) == (3, "E122")
    assert not (home / "db" / "other.retdb").exists()
    doubled = run(*words, "--classes", "red, Red", "--json")
    assert (doubled.code, doubled.error["code"]) == (3, "E121")


@pytest.fixture
def bad_photos(tmp_path: Path) -> Path:
    """One class: five unusual pictures that are fine, and four that cannot be used."""
    folder = tmp_path / "bad" / "red"
    folder.mkdir(parents=True)
    pixels = textured("red", 1)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "rotated.jpg", exif=exif)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.convert("P").save(folder / "palette.png")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    image.convert("RGBA").save(folder / "clear.png")
    image.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:300])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no picture at all")
    save_bomb(folder / "bomb.png")
    return tmp_path / "bad"


FAILING = {"cut.jpg": "E114", "empty.png": "E112", "text.png": "E112", "bomb.png": "E113"}


def test_bad_pictures_are_named_and_the_others_are_stored(home: Path, bad_photos: Path, preset: Path, run: Run) -> None:
    outcome = run(*build_words(preset, bad_photos), "--json")
    assert outcome.code == 6
    assert outcome.error["code"] == "E601"
    assert "4 of 9" in outcome.error["message"]
    report = outcome.json
    assert report["added"] == 5
    assert {Path(f["path"]).name: f["code"] for f in report["failures"]} == FAILING
    for name in FAILING:
        assert name in outcome.err
    rotated = next(s for _, _, s in Database.open(home / "db" / "new.retdb").iter_segments() if "rotated" in s.image_id)
    assert (rotated.image_height, rotated.image_width) == (64, 48)


@pytest.mark.parametrize(("allowed", "code"), [("3", 6), ("45%", 0), ("x", 3)])
def test_max_failures_is_a_share_or_a_number(
    home: Path, bad_photos: Path, preset: Path, run: Run, allowed: str, code: int
) -> None:
    assert run(*build_words(preset, bad_photos), f"--max-failures={allowed}").code == code


def test_a_database_of_another_feature_space_is_refused(
    home: Path, workshop: Path, preset: Path, run: Run, tmp_path: Path
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(preset.read_text().replace("short_side = 64", "short_side = 96"))
    shutil.copy(workshop / "weights.safetensors", tmp_path)
    before = Database.open(home / "db" / "pets.retdb")
    outcome = run(*build_words(other, workshop / "photos", "pets"), "--json")
    assert outcome.code == 5
    assert outcome.error["code"] == "E301"
    assert "short_side: 64 != 96" in outcome.error["why"]
    assert Database.open(before.path).version == before.version


def test_missing_weights_leave_with_four_and_no_database(home: Path, workshop: Path, run: Run, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely.toml"
    lonely.write_text((workshop / "preset.toml").read_text())
    outcome = run(*build_words(lonely, workshop / "photos"), "--json")
    assert (outcome.code, outcome.error["code"]) == (4, "E201")
    assert "RETCLIP_MODELS_DIR" in outcome.error["hint"]
    assert not (home / "db" / "new.retdb").exists()


def test_a_second_writer_is_refused(home: Path, workshop: Path, preset: Path, run: Run, tmp_path: Path) -> None:
    database = Database.open(home / "db" / "pets.retdb")
    more = save_photos(tmp_path / "more", ("yellow",))
    with database.write("build", "another program"):
        outcome = run(*build_words(preset, more, "pets"), "--json")
    assert outcome.code == 5
    assert outcome.error["code"] == "E304"
    retry = run(*build_words(preset, more, "pets"), "--json")
    assert retry.code == 0
    assert retry.json["resumed_units"] == 2
    assert retry.json["classes"] == {"yellow": 4}


def test_a_full_disk_is_a_resource_error_and_harms_nothing(
    home: Path, workshop: Path, preset: Path, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    more = save_photos(tmp_path / "more", ("yellow", "grey"))
    before = Database.open(home / "db" / "pets.retdb")
    written = 0
    real = __import__("os").write

    def write(descriptor: int, data: Any) -> int:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(real(descriptor, data))

    with monkeypatch.context() as patch:
        patch.setattr("retclip.shards.durable.os.write", write)
        outcome = run(*build_words(preset, more, "pets"), "--json")
    assert outcome.code == 7
    assert outcome.error["code"] == "E401"
    after = Database.open(before.path)
    assert after.content_hash() == before.content_hash()
    assert verify(before.path, deep=True).ok
    finished = run(*build_words(preset, more, "pets"), "--json")
    assert finished.code == 0
    assert finished.json["classes"] == {"yellow": 4, "grey": 4}


def test_an_interrupt_keeps_finished_units(
    home: Path, workshop: Path, preset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from retclip.shards import Ledger

    put = Ledger.put

    def put_and_interrupt(self: Ledger, *arguments: Any) -> None:
        put(self, *arguments)
        if len(self.units()) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put", put_and_interrupt)
        stopped = run(*build_words(preset, workshop / "photos"))
    assert stopped.code == 130
    assert "what was written is kept" in stopped.err
    assert run("db", "info", "new", "--json").json["unfinished"] != []
    outcome = run(*build_words(preset, workshop / "photos"), "--json")
    assert outcome.code == 0, outcome.err
    resumed = outcome.json
    assert resumed["resumed_units"] == 3
    assert resumed["content_hash"] == run("db", "info", "pets", "--json").json["content_hash"]
    assert run("db", "info", "new", "--json").json["unfinished"] == []


def test_restart_forgets_the_finished_part(
    home: Path, workshop: Path, preset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("retclip.indexer.build._commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert run(*build_words(preset, workshop / "photos")).code == 130
    report = run(*build_words(preset, workshop / "photos"), "--restart", "--json").json
    assert (report["resumed_units"], report["added"]) == (0, 12)


def test_teaching_from_a_folder_a_corpus_and_a_database(
    home: Path, workshop: Path, preset: Path, run: Run, tmp_path: Path
) -> None:
    more = save_photos(tmp_path / "more", ("yellow", "grey"))
    learnt = run("index", "add-classes", "--db", "pets", "--classes", "yellow", "--images", more, "--json")
    assert learnt.code == 0
    assert learnt.json["classes"] == {"yellow": 4}
    flat = run(
        "index", "add-classes", "--db", "pets", "--classes", "ash", "--images", more / "grey", "--shots", "3", "--json"
    )
    assert flat.json["classes"] == {"ash": 3}
    assert run(*build_words(preset, workshop / "photos", "copy"), "--classes", "red").code == 0
    copied = run("index", "add-classes", "--db", "copy", "--classes", "yellow,ash", "--fallback", "pets", "--json")
    assert copied.json["classes"] == {"yellow": 4, "ash": 3}
    again = run("index", "add-classes", "--db", "copy", "--classes", "yellow", "--fallback", "pets", "--json")
    assert (again.json["added"], again.json["version"]) == (0, copied.json["version"])
    listed = run(
        "index", "add-classes", "--db", "copy", "--classes", "green", "--fallback", "pets", "--dry-run", "--json"
    )
    assert [(item["name"], item["count"]) for item in listed.json] == [("green", 4)]
    assert run("index", "add-classes", "--db", "copy", "--fallback", "pets", "--json").error["code"] == "E120"
    lacking = run("index", "add-classes", "--db", "copy", "--classes", "zebra", "--fallback", "pets", "--json")
    assert (lacking.code, lacking.error["code"]) == (5, "E309")


@pytest.mark.parametrize("content", [[], ["notes.txt"]])
def test_a_folder_without_pictures_is_refused(
    home: Path, preset: Path, run: Run, tmp_path: Path, content: list[str]
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    for name in content:
        (folder / name).write_text("x")
    outcome = run(*build_words(preset, folder), "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E101")
    assert not (home / "db" / "new.retdb").exists()
