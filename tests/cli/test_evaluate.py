from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.panoptic import ids_to_rgb
from tests.cli.conftest import Run, textured

HALVES = np.repeat(np.array([[1, 2]], np.int32), [32, 32], axis=1).repeat(48, axis=0)


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Three annotated photos, left and right half of different colours; one photo has a crowd and a void corner."""
    root = tmp_path / "scenes"
    pairs = [("red", "blue"), ("green", "red"), ("blue", "green")]
    ids = {"red": 1, "green": 2, "blue": 3}
    images, annotations = [], []
    for number, (left, right) in enumerate(pairs):
        name = f"{number:04d}"
        pixels = np.concatenate([textured(left, 50 + number, 48, 32), textured(right, 60 + number, 48, 32)], axis=1)
        for folder in ("images", "panoptic"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / "images" / f"{name}.jpg", quality=95)
        truth = HALVES.copy()
        if number == 2:
            truth[:4, :4] = 0
        Image.fromarray(ids_to_rgb(truth)).save(root / "panoptic" / f"{name}.png")
        images.append({"id": name, "file_name": f"{name}.jpg"})
        segments = [{"id": n, "category_id": ids[c], "iscrowd": 0} for n, c in ((1, left), (2, right))]
        annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})
    categories = [{"id": n, "name": c, "isthing": int(c != "blue")} for c, n in ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "panoptic.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def evaluate(run: Run, home: Path, preset: Path, scenes: Path):
    def call(*words: object):
        base = ["eval", "--dataset", "panoptic", "--root", scenes, "--resamples", "20", "--out", scenes.parent / "out"]
        return run(*base, "--db", "pets", "--preset", preset, "--device", "cpu", "--json", *words)

    return call


def test_one_pass_gives_every_figure_and_says_whose_it_is(evaluate, tmp_path):
    done = evaluate("--proposals", "given")
    assert done.code == 0, done.err
    found = done.json
    assert (found["pq"], found["sq"], found["rq"], found["miou"]) == (100.0, 100.0, 100.0, 100.0)
    assert found["map"] == pytest.approx(100.0)
    assert {row["name"]: row["pq"] for row in found["per_class"]} == {"red": 100.0, "green": 100.0, "blue": 100.0}
    assert found["seen"]["pq"] == 100.0
    assert found["unseen"] == {"pq": None, "map": None, "miou": None}
    assert found["protocol"] == "foreign database, training-free"
    assert found["database"]["name"] == "pets"
    assert {"version", "content_hash", "feature_space", "weights_sha256"} <= set(found["database"])
    assert found["seen_list"]["size"] == 3
    assert found["intervals"]["pq"] == [100.0, 100.0]
    assert found["dataset"]["images"] == 3
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == found


def test_the_page_stands_alone_and_shows_the_worst(evaluate, tmp_path):
    assert evaluate("--proposals", "regions").code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert "http://" not in page.replace("http-equiv", "")
    assert "LEAK" not in page
    for word in ("protocol", "content hash", "seen list", "Mistaken classes", "Calibration"):
        assert word in page


def test_networks_run_once(evaluate, monkeypatch):
    first = evaluate("--proposals", "given").json
    import retclip.assembly

    def forbidden(*arguments):
        raise AssertionError("a network was made")

    monkeypatch.setattr(retclip.assembly, "make_encoder", forbidden)
    again = evaluate("--proposals", "given").json
    assert again == first
    other = evaluate("--proposals", "given", "--set", "retrieval.k=1", "--set", "retrieval.rule=minmax")
    assert other.code == 0
    assert other.json["settings"]["retrieval"]["k"] == 1


@pytest.mark.parametrize("oracle", ["masks", "vocabulary", "labels,selection"])
def test_oracles_are_named_and_help(evaluate, oracle):
    plain = evaluate("--proposals", "regions").json
    found = evaluate("--proposals", "regions", "--oracle", oracle).json
    assert oracle.split(",")[0] in found["protocol"]
    assert found["pq"] >= plain["pq"]


def test_a_seen_file_splits_the_classes(evaluate, tmp_path):
    path = tmp_path / "seen.txt"
    path.write_text("red\nblue\n")
    found = evaluate("--proposals", "given", "--seen-file", path).json
    assert (found["seen_list"]["name"], found["seen_list"]["size"]) == (str(path), 2)
    assert found["unseen"]["pq"] == 100.0
    assert [row["seen"] for row in found["per_class"]] == [True, False, True]


def test_leaked_pictures_stop_the_run_or_mark_the_report(evaluate, scenes, workshop):
    stored = workshop / "photos" / "red" / "0.png"
    shutil.copy(stored, scenes / "images" / "0000.jpg")
    refused = evaluate("--proposals", "given")
    assert (refused.code, refused.error["code"]) == (3, "E166")
    assert "0000.jpg" in refused.error["why"]
    allowed = evaluate("--proposals", "given", "--allow-leak")
    assert allowed.code == 0
    assert allowed.json["leakage"]["leaks"][0]["reason"] == "same bytes"
    assert 'class="leak"' in (scenes.parent / "out" / "report.html").read_text()


def test_predictions_of_others_need_no_database(run: Run, home: Path, scenes: Path, tmp_path: Path):
    folder = tmp_path / "theirs"
    shutil.copytree(scenes / "panoptic", folder / "panoptic")
    shutil.copy(scenes / "panoptic.json", folder / "panoptic.json")
    words = ["eval", "--dataset", "panoptic", "--root", scenes, "--pred", folder, "--out", tmp_path / "o", "--json"]
    done = run(*words, "--resamples", "10")
    assert done.code == 0, done.err
    assert (done.json["pq"], done.json["database"], done.json["protocol"]) == (100.0, None, "foreign predictions")
    (folder / "panoptic" / "0001.png").unlink()
    broken = run(*words)
    assert (broken.code, broken.error["code"]) == (3, "E163")
    assert "0001.png" in broken.error["message"]


def test_the_parts_of_a_run_that_cannot_be(evaluate, run: Run, scenes: Path, home: Path):
    assert evaluate("--proposals", "sam").error["code"] == "E160"
    assert evaluate("--oracle", "everything").error["code"] == "E160"
    assert evaluate("--set", "fusion=1").error["code"] == "E143"
    assert evaluate("--set", "fusion.gama=1").error["code"] == "E143"
    assert run("eval", "--dataset", "panoptic", "--root", scenes, "--json").error["code"] == "E160"


def test_another_preset_needs_another_folder(evaluate):
    assert evaluate("--proposals", "regions").code == 0
    changed = evaluate("--proposals", "regions", "--set", "proposals.max_regions=5")
    assert changed.error["code"] == "E165"
    assert "proposals" in changed.error["why"]


def test_prepare_reports_what_it_wrote(run: Run, home: Path, tmp_path: Path):
    refused = run("prepare", "--dataset", "cityscapes", "--root", tmp_path, "--json")
    assert refused.error["code"] == "E162"
    folder = tmp_path / "gtFine" / "val" / "ulm"
    folder.mkdir(parents=True)
    Image.fromarray(np.array([[7, 24001]], np.uint16)).save(folder / "ulm_1_2_gtFine_instanceIds.png")
    done = run("prepare", "--dataset", "cityscapes", "--root", tmp_path, "--incomplete", "--json")
    assert done.code == 0, done.err
    assert (done.json["images"], done.json["segments"], done.json["things"]) == (1, 2, 1)
    assert Path(done.json["panoptic"]).is_file()
