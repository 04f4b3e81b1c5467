"""The whole training-free system on real photos: captions -> labels -> boxes -> masks -> vectors -> labelled regions.

Detector, masker and CLIP are small and their weights random, so nothing here is well segmented; every step is the one
that real weights take, from the files on disk to the results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retclip.cli.main import main
from retclip.core.rle import decode_mask
from retclip.presets import load_preset
from retclip.shards import open_database
from tests.adapters.tiny_clip import write_tiny_clip
from tests.adapters.tiny_models import write_tiny_grounding_dino
from tests.adapters.tiny_sam import write_tiny_sam

CLASSES = "person,dog,cat,horse,pizza,train,bicycle,car,bus,surfboard,tennis racket,giraffe,elephant,skateboard"
PRESET = """
[encoder]
library = "open_clip"
model = "tiny"
weights = "{folder}/clip"
short_side = 64
long_side = 128

[detector]
library = "grounding_dino"
model = "tiny"
weights = "{folder}/detector"

[masker]
library = "sam"
model = "tiny"
weights = "{folder}/masker"

[index]
batch = 4
box_threshold = 0.3
thumbnails = 32

[proposals]
kind = "gdino-sam"
box_threshold = 0.3

[retrieval]
rule = "voting"

[merge]
rule = "greedy"
overlap_threshold = 0.3
"""


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a tiny CLIP, Grounding DINO and SAM with random weights, in the layout of the released ones."""
    folder = tmp_path_factory.mktemp("networks")
    write_tiny_clip(folder / "clip", "vit")
    write_tiny_grounding_dino(folder / "detector", [word for name in CLASSES.split(",") for word in name.split()])
    write_tiny_sam(folder / "masker", 0)
    (folder / "tiny.toml").write_text(PRESET.format(folder=folder))
    return folder / "tiny.toml"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RETCLIP_OFFLINE", "1")
    monkeypatch.delenv("RETCLIP_MODELS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    code = main([*map(str, words), "--json", "--quiet"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


@pytest.fixture
def captioned(test_data: Path, tmp_path: Path) -> Path:
    """tiny_coco with captions alone: no box, no mask, no label."""
    source, root = test_data / "tiny_coco" / "tiny_coco", tmp_path / "captioned"
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        name = f"annotations/captions_{split}.json"
        (root / name).write_bytes((source / name).read_bytes())
        (root / split).symlink_to(source / split)
    return root


def test_captions_become_a_database_and_the_database_labels_photos(
    captioned: Path, preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--source", "coco", "--root", captioned, "--labels", "captions", "--classes", CLASSES, "--limit", 12]
    built = run(capsys, "index", "build", *words, "--db", "captions", "--preset", preset)
    assert built["failures"] == []
    assert built["added"] > 0
    database = open_database("captions")
    settings = load_preset(str(preset))
    assert [model["role"] for model in database.models] == ["encoder", "detector", "masker"]
    assert all(len(model["sha256"]) == 64 for model in database.models)
    for _, _, segment in database.iter_segments():
        assert segment.label_source == "caption"
        assert segment.box_source.startswith("tiny@")
        assert segment.mask_source.startswith("tiny@")
        assert segment.detector_score >= settings.index.box_threshold
        assert len(segment.prompt_chunk) == 12
        mask = decode_mask(segment.mask_counts, (segment.image_height, segment.image_width))
        assert int(mask.sum()) == segment.area
    again = run(capsys, "index", "build", *words, "--db", "captions", "--preset", preset)
    assert (again["added"], again["content_hash"]) == (0, built["content_hash"])

    gaps = run(capsys, "classes", "check", f"{CLASSES},zebra", "--db", "captions")
    assert gaps["classes"][-1]["state"] == "missing"
    assert gaps["classes"][-1]["nearest"] is not None, "the tiny CLIP reads names"
    assert gaps["prompts"] == 1

    photo = sorted((captioned / "val2017").glob("*.jpg"))[0]
    found = run(capsys, "segment", photo, "--db", "captions", "--classes", CLASSES, "--out", tmp_path / "out")
    (image,) = found["images"]
    assert image["segments"]
    assert found["run"]["proposals"]["kind"] == "gdino-sam"
    assert {segment["label"] for segment in image["segments"]} <= set(CLASSES.split(","))
    for segment in image["segments"]:
        assert segment["scores"]["clip"] is not None
        assert segment["scores"]["retrieval"] is not None
        assert segment["neighbors"][0]["label_source"] == "caption"
    assert (tmp_path / "out" / photo.stem / "panoptic.png").is_file()


def test_a_grid_of_points_and_annotated_boxes_take_the_same_masker(
    test_data: Path, preset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = test_data / "tiny_coco" / "tiny_coco"
    words = ["--source", "coco", "--root", root, "--use-boxes", "--limit", 3, "--db", "boxes", "--preset", preset]
    assert run(capsys, "index", "build", *words)["added"] > 0
    segments = [segment for _, _, segment in open_database("boxes").iter_segments()]
    assert {segment.box_source for segment in segments} == {"coco.instances"}
    assert all(segment.mask_source.startswith("tiny@") for segment in segments)
    assert [model["role"] for model in open_database("boxes").models] == ["encoder", "masker"]
    photo = sorted((root / "val2017").glob("*.jpg"))[0]
    outcome = run(capsys, "segment", photo, "--db", "boxes", "--proposals", "sam-grid", "--out", tmp_path / "out")
    assert outcome["run"]["proposals"]["kind"] == "sam-grid"
