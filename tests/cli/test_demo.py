"""`retclip demo` tells, does and measures; with untrained networks it must say that nothing came as hoped."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from retclip.cli import demo_walk
from retclip.cli.console import Speech
from retclip.cli.demo_scenes import KnownObject, file_exemplar, move_exemplar, name_of, objects_of
from retclip.cli.demo_telling import Telling, own_home
from retclip.cli.demo_walk import Plan, expectations
from retclip.cli.main import main
from retclip.core.errors import InputError
from retclip.core.panoptic import ids_to_rgb
from retclip.corpora.playground import SceneSettings
from retclip.corpora.playground.export import write_coco
from retclip.evaluation.datasets import open_evaluation_set
from retclip.reports.demo_page import Exemplar, Naming
from retclip.segmenters.fcclip.variants import build_fcclip
from retclip.shards import open_database
from tests.adapters.tiny_models import write_tiny_grounding_dino
from tests.adapters.tiny_sam import write_tiny_sam

Run = Any
SMALL = Plan("mushroom", "key", seed=34, train=16, test=3, exemplars=1, shown=1)
PRESET = """
[encoder]
library = "fcclip"
model = "tiny"
weights = "fcclip.safetensors"
short_side = 64
long_side = 128
[detector]
library = "grounding_dino"
weights = "detector"
[masker]
library = "sam"
weights = "masker"
[index]
box_threshold = 0.05
[proposals]
kind = "regions"
[merge]
rule = "greedy"
overlap_threshold = 0.5
"""


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of small networks of all families with random weights."""
    folder = tmp_path_factory.mktemp("untrained")
    torch.manual_seed(0)
    weights = {name: value.contiguous() for name, value in build_fcclip("tiny").state_dict().items()}
    save_file(weights, folder / "fcclip.safetensors")
    write_tiny_grounding_dino(folder / "detector")
    write_tiny_sam(folder / "masker", 0)
    (folder / "untrained.toml").write_text(PRESET)
    return folder / "untrained.toml"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo_walk, "PLAN", SMALL)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def told(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished demo."""
    out = tmp_path_factory.mktemp("stage") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_walk, "PLAN", SMALL)
        assert main(["demo", "--out", str(out), "--preset", str(untrained), "--quiet"]) == 0
        yield out


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """What must be the same on every run; outputs shown to people say their seconds too."""
    steps = [
        {key: value for key, value in step.items() if key != "seconds" and "--explain" not in str(step["commands"])}
        for step in document["steps"]
    ]
    return {key: value for key, value in document.items() if key not in ("seconds", "peak_memory_bytes")} | {
        "steps": steps
    }


def test_a_second_run_in_the_same_folder_tells_the_same(told: Path, untrained: Path, run: Run) -> None:
    before = json.loads((told / "demo.json").read_bytes())
    home = {name: os.environ.get(name) for name in ("RETCLIP_HOME", "RETCLIP_OFFLINE", "RETCLIP_DATA")}
    outcome = run("demo", "--out", told, "--preset", untrained, "--json")
    assert outcome.code == 0, outcome.err
    assert without_times(outcome.json) == without_times(before)
    assert {name: os.environ.get(name) for name in home} == home
    assert outcome.json["schema"] == "retclip.demo/1"
    assert outcome.json["peak_memory_bytes"] > 100 << 20
    assert sum(step["seconds"] for step in outcome.json["steps"]) <= outcome.json["seconds"] + 1
    # Every command stands on stderr before its outcome.
    for step in outcome.json["steps"]:
        assert all(f"$ {command}" in outcome.err for command in step["commands"])


def test_the_story_is_what_database_and_evaluation_say(told: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads((told / "demo.json").read_bytes())
    assert document["finished"]
    measured = [step for step in document["steps"] if "pq" in step]
    monkeypatch.setenv("RETCLIP_HOME", str(told / "home"))
    log = run("db", "log", "playground", "--json").json
    assert {step["version"] for step in measured} == {entry["version"] for entry in log if entry["segments"]}
    assert [entry["operation"] for entry in log][-1] == "add-classes"
    last = json.loads((told / "evaluation" / "report.json").read_bytes())
    assert measured[-1]["pq"]["all"] == last["pq"]
    for shown in measured[-1]["objects"]:
        stored = json.loads((told / "results" / shown["picture"] / "segments.json").read_bytes())["segments"]
        assert not shown["label"] or shown["label"] in {segment["label"] for segment in stored}
    # Classes that were left out came with their exemplars alone.
    first = run("db", "classes", f"playground@{measured[0]['version']}", "--json").json
    assert not {"mushroom", "key"} & {entry["name"] for entry in first}
    assert len(first) > 10


def test_shown_commands_can_be_typed(told: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = json.loads((told / "demo.json").read_bytes())["steps"]
    commands = [shlex.split(command) for step in steps for command in step["commands"]]
    monkeypatch.setenv("RETCLIP_HOME", str(told / "home"))
    last = next(words for words in reversed(commands) if words[:2] == ["retclip", "eval"])
    assert run(*last[1:]).code == 0
    assert {words[0] for words in commands} == {"retclip", "mv"}


def test_untrained_networks_do_not_come_out_well(told: Path) -> None:
    document = json.loads((told / "demo.json").read_bytes())
    held = {entry["claim"]: entry["holds"] for entry in document["expectations"]}
    objects = [shown for step in document["steps"] if "pq" in step for shown in step["objects"]]
    assert not all(held.values())
    assert held["without exemplars no shown object has its right name"] == all(
        shown["label"] != shown["truth"] for shown in objects[:2]
    )
    page = (told / "report.html").read_text()
    assert page.count(">no<") == list(held.values()).count(False)
    assert "http:" not in page
    assert "https:" not in page


def test_the_blamed_exemplar_is_deleted_and_taught_where_it_belongs(
    tmp_path: Path, untrained: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stage"

    def as_trained(known: KnownObject, results: Path) -> Naming:
        """What good networks say: an object is called as the stored exemplar that shows its class is filed."""
        photo = objects_of(open_evaluation_set("playground", out / "scenes", "train"), "key", "mushroom")[0].photo.name
        database = open_database("playground")
        lesson = [s for _, _, s in database.iter_segments() if s.source == "folder"]
        own = [s for s in lesson if (s.image_id.endswith(photo)) == (known.label == "key")]
        exemplars = tuple(Exemplar(s.segment_id, s.label, f"folder/{s.image_id}", 0.1) for s in own)
        return Naming(known.photo.stem, known.label, own[0].label if own else "", 0.5, "retrieval", exemplars)

    monkeypatch.setattr(demo_walk, "name_of", as_trained)
    outcome = run("demo", "--out", out, "--preset", untrained, "--json")
    assert outcome.code == 0, outcome.err
    assert all(entry["holds"] for entry in outcome.json["expectations"]), outcome.json["expectations"]
    monkeypatch.setenv("RETCLIP_HOME", str(out / "home"))
    steps = [step for step in outcome.json["steps"] if "pq" in step]
    operations = [entry["operation"] for entry in run("db", "log", "playground", "--json").json]
    assert operations[-3:] == ["add-classes", "delete", "add-classes"]
    deleted = (out / "misfiled.txt").read_text().strip()
    spoiled, taught = (step["objects"][1]["exemplars"][0] for step in (steps[1], steps[3]))
    assert [spoiled["segment_id"], taught["segment_id"]] == [deleted, deleted]
    assert [spoiled["label"], taught["label"]] == ["mushroom", "key"]
    assert (spoiled["origin"].split("/")[1], taught["origin"].split("/")[1]) == ("mushroom", "key")


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path, run: Run) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "home").mkdir()
    outcome = run("demo", "--out", tmp_path / "photos", "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E240")
    assert (tmp_path / "photos" / "home").is_dir()


def test_what_cannot_be_removed_is_named(tmp_path: Path, run: Run) -> None:
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "demo.json").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (stage / "scenes").symlink_to(tmp_path / "elsewhere")
    outcome = run("demo", "--out", stage, "--json")
    assert (outcome.code, outcome.error["code"]) == (3, "E241")
    assert (tmp_path / "elsewhere").is_dir()


def test_an_error_of_a_step_is_the_demos_own_and_it_can_start_again(
    tmp_path: Path, untrained: Path, preset: Path, run: Run
) -> None:
    home = os.environ["RETCLIP_HOME"]
    outcome = run("demo", "--out", tmp_path / "stage", "--preset", preset, "--json")
    assert outcome.error["code"] == "E149", "a preset without detector cannot build from labels"
    assert os.environ["RETCLIP_HOME"] == home
    assert not json.loads((tmp_path / "stage" / "demo.json").read_bytes())["finished"]
    again = run("demo", "--out", tmp_path / "stage", "--preset", tmp_path / "missing.toml", "--json")
    assert again.error["code"] == "E140"


def test_ctrl_c_in_a_step_stops_the_demo(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("retclip.corpora.playground.export.write_coco", interrupted)
    home = os.environ["RETCLIP_HOME"]
    assert run("demo", "--out", tmp_path / "stage").code == 130
    assert os.environ["RETCLIP_HOME"] == home
    assert not (tmp_path / "stage" / "report.html").exists()


def naming(truth: str, label: str) -> Naming:
    return Naming("000001", truth, label, 0.5, "CLIP", ())


def walked(*labels: tuple[str, str]) -> dict[str, list[Naming]]:
    """What a mushroom and a key are called in each phase."""
    phases = ("unknown", "spoiled", "mended", "taught")
    pairs = zip(phases, labels, strict=True)
    return {phase: [naming("mushroom", one), naming("key", two)] for phase, (one, two) in pairs}


BEST = (("heart", "ring"), ("mushroom", "mushroom"), ("mushroom", "ring"), ("mushroom", "key"))


def test_expectations_hold_in_the_best_case_and_each_can_fail() -> None:
    best = expectations(SMALL, walked(*BEST))
    assert all(best.values())
    worse = {
        0: (("mushroom", "ring"), *BEST[1:]),
        1: (BEST[0], ("ring", "mushroom"), *BEST[2:]),
        2: (BEST[0], ("mushroom", "ring"), *BEST[2:]),
        4: (*BEST[:2], ("mushroom", "mushroom"), BEST[3]),
        5: (*BEST[:3], ("mushroom", "ring")),
        6: (*BEST[:3], ("ring", "key")),
    }
    for place, labels in worse.items():
        held = list(expectations(SMALL, walked(*labels)).values())
        assert not held[place], list(best)[place]
    without_mending = {phase: found for phase, found in walked(*BEST).items() if phase != "mended"}
    assert list(expectations(SMALL, without_mending).values())[3:5] == [False, False]


def test_objects_are_the_largest_of_each_picture(tmp_path: Path) -> None:
    write_coco(tmp_path, "test", SceneSettings.of("a", seed=5), 4)
    dataset = open_evaluation_set("playground", tmp_path, "test")
    numbers = {category.name: category.id for category in dataset.vocabulary}
    shows = [{s.category_id for s in image.segments} for image in dataset.images]
    for label in ("mushroom", "key", "moss"):
        found = objects_of(dataset, label)
        assert len(found) == sum(numbers[label] in classes for classes in shows)
        assert [known.area for known in found] == sorted((known.area for known in found), reverse=True)
        assert all(known.area >= 60 for known in found)
    alone = objects_of(dataset, "mushroom", without="moss")
    both = sum({numbers["mushroom"], numbers["moss"]} <= classes for classes in shows)
    assert len(alone) == len(objects_of(dataset, "mushroom")) - both


def save_result(folder: Path, ids: Any, segments: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    Image.fromarray(ids_to_rgb(ids)).save(folder / "panoptic.png")
    (folder / "segments.json").write_text(json.dumps({"segments": segments}))


def test_an_object_is_called_as_the_segment_over_most_of_it(tmp_path: Path) -> None:
    ids = np.zeros((6, 8), np.int32)
    ids[:, 4:], ids[0] = 300, 1
    neighbor = {"segment_id": "00ff", "label": "ring", "source": "coco", "image_id": "7", "distance": 0.25}
    rows = [
        {"id": number, "label": label, "score": 0.5, "decided_by": "in_vocab", "neighbors": [neighbor]}
        for number, label in ((1, "sand"), (300, "ring"))
    ]
    save_result(tmp_path / "scene", ids, rows)
    mask = np.zeros((6, 8), np.bool_)
    mask[:4, 5:] = True
    found = name_of(KnownObject("key", tmp_path / "scene.png", mask), tmp_path)
    assert (found.label, found.decided_by, found.right) == ("ring", "in-vocab", False)
    assert (found.exemplars[0].segment_id, found.exemplars[0].origin) == (255, "coco/7")
    nowhere = np.zeros((6, 8), np.bool_)
    nowhere[2:, :3] = True
    assert name_of(KnownObject("key", tmp_path / "scene.png", nowhere), tmp_path).label == ""


def test_an_exemplar_moves_with_its_mask(tmp_path: Path) -> None:
    photo = tmp_path / "000009.png"
    Image.fromarray(np.full((4, 5, 3), 9, np.uint8)).save(photo)
    mask = np.eye(4, 5, dtype=np.bool_)
    for label in ("mushroom", "key"):
        file_exemplar(KnownObject("key", photo, mask), tmp_path / label)
        (tmp_path / "key" / photo.name).unlink(missing_ok=True)
    moved = move_exemplar("000009", tmp_path / "mushroom", tmp_path / "key")
    assert not any(path.exists() for path in moved)
    assert (tmp_path / "key" / "000009.png").read_bytes() == photo.read_bytes()
    stored = np.asarray(Image.open(tmp_path / "key" / "000009.mask.png"))
    assert ((stored > 0) == mask).all()


def test_a_home_is_given_back_whatever_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETCLIP_DATA", "somewhere")
    monkeypatch.delenv("RETCLIP_OFFLINE", raising=False)
    before = dict(os.environ)
    with own_home(tmp_path):
        assert os.environ["RETCLIP_HOME"] == str(tmp_path)
        assert "RETCLIP_DATA" not in os.environ
    assert dict(os.environ) == before
    with pytest.raises(InputError), own_home(tmp_path):
        raise InputError("E120", "stop")
    assert dict(os.environ) == before


def test_a_step_that_fails_becomes_no_chapter() -> None:
    telling = Telling(Speech(quiet=True))
    with pytest.raises(InputError, match="E103"), telling.step("fails") as step:
        step.run("index", "build", "--source", "coco", "--root", ".")
    assert telling.chapters == []
