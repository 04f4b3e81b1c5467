from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.core.panoptic import ids_to_rgb
from retclip.evaluation.datasets import open_evaluation_set
from retclip.evaluation.prediction import PredictedFolder
from retclip.evaluation.session import OpenPredicted, score
from retclip.evaluation.truth import EvaluationSet

TRUE = np.array([[1, 1, 2], [1, 1, 0]], np.int32)


def write_map(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids_to_rgb(ids.astype(np.int32))).save(path)


@pytest.fixture
def dataset(tmp_path) -> EvaluationSet:
    root = tmp_path / "truth"
    entries = []
    for name in ("a", "b"):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(root / "images" / f"{name}.jpg")
        write_map(root / "panoptic" / f"{name}.png", TRUE)
        segments = [{"id": 1, "category_id": 4}, {"id": 2, "category_id": 9}]
        entries.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})
    content = {
        "images": [{"id": name, "file_name": f"{name}.jpg"} for name in ("a", "b")],
        "annotations": entries,
        "categories": [{"id": 4, "name": "sky", "isthing": 0}, {"id": 9, "name": "kite", "isthing": 1}],
    }
    (root / "panoptic.json").write_text(json.dumps(content))
    return open_evaluation_set("panoptic", root, "val")


def write_predictions(folder: Path, change=lambda content: None, ids: np.ndarray = TRUE) -> Path:
    entries = []
    for name in ("a", "b"):
        write_map(folder / "panoptic" / f"{name}.png", ids)
        segments = [{"id": 1, "category_id": 4}, {"id": 2, "category_id": 9, "score": 0.5}]
        entries.append({"image_id": name, "file_name": f"{name}.png", "segments_info": segments})
    content = {"annotations": entries}
    change(content)
    (folder / "panoptic.json").write_text(json.dumps(content))
    return folder


def run(dataset: EvaluationSet, folder: Path, workers: int = 1):
    return score(dataset, OpenPredicted(folder, dataset), workers, lambda done, total: None)


def test_truth_as_a_prediction_is_perfect(dataset, tmp_path):
    tally = run(dataset, write_predictions(tmp_path / "p"))
    assert tally.panoptic().all.pq == 1.0
    assert tally.confusion.result().miou == 1.0
    assert tally.precision.result().mean == pytest.approx(1.0)
    # The kite says 0.5 and is right.
    assert tally.calibration.error() == pytest.approx(0.25)


def test_two_processes_count_what_one_counts(dataset, tmp_path):
    folder = write_predictions(tmp_path / "p", ids=np.array([[1, 1, 2], [1, 2, 2]]))
    one, two = run(dataset, folder), run(dataset, folder, workers=2)
    assert [row.image_id for row in two.rows] == [row.image_id for row in one.rows] == ["a", "b"]
    np.testing.assert_array_equal(one.quality.counts.iou, two.quality.counts.iou)
    np.testing.assert_array_equal(one.confusion.matrix, two.confusion.matrix)
    assert one.precision.result().stats == two.precision.result().stats


def drop_image(content):
    content["annotations"].pop()


def unknown_category(content):
    content["annotations"][1]["segments_info"][0]["category_id"] = 77


def doubled_id(content):
    content["annotations"][1]["segments_info"][0]["id"] = 2


def shared_map(content):
    content["annotations"][1]["file_name"] = "a.png"


def missing_map(content):
    content["annotations"][1]["file_name"] = "c.png"


def outside(content):
    content["annotations"][1]["file_name"] = "../../truth/panoptic/a.png"


def other_names(content):
    content["categories"] = [{"id": 4, "name": "sea"}]


def no_list(content):
    del content["annotations"][0]["segments_info"]


def unlisted(content):
    content["annotations"][0]["segments_info"].pop()


def extra(content):
    content["annotations"][0]["segments_info"].append({"id": 30, "category_id": 9})


@pytest.mark.parametrize(
    ("change", "file", "why"),
    [
        (drop_image, "panoptic.json", "1 of 2 images have no entry, first b"),
        (unknown_category, "panoptic.json", r"Image b has categories \[77\]"),
        (doubled_id, "panoptic.json", "Image b lists segment id 2 twice"),
        (shared_map, "panoptic.json", "Map a.png belongs to several images"),
        (missing_map, "c.png", "it is not there"),
        (outside, "a.png", "it is not there"),
        (other_names, "panoptic.json", "Category 4 is 'sea' there and 'sky'"),
        (no_list, "panoptic.json", "KeyError: 'segments_info'"),
        (unlisted, "a.png", r"ids \[2\] are in the map but not in the list"),
        (extra, "a.png", r"ids \[30\] are listed but not in the map"),
    ],
)
def test_bad_predictions_name_the_file_and_the_reason(dataset, tmp_path, change, file, why):
    with pytest.raises(InputError, match=rf"E16[13] .*{file}") as caught:
        run(dataset, write_predictions(tmp_path / "p", change))
    assert caught.match(why)


def test_a_map_of_another_size_is_named(dataset, tmp_path):
    folder = write_predictions(tmp_path / "p")
    write_map(folder / "panoptic" / "b.png", np.array([[1, 1, 2]]))
    with pytest.raises(InputError, match=r"E163 .*b\.png") as caught:
        run(dataset, folder)
    assert "(1, 3)" in caught.value.why
    assert "(2, 3)" in caught.value.why


def test_grey_maps_and_missing_files(dataset, tmp_path):
    folder = write_predictions(tmp_path / "p")
    Image.fromarray(TRUE.astype(np.uint8)).save(folder / "panoptic" / "a.png")
    with pytest.raises(InputError, match="has no colours"):
        run(dataset, folder)
    (folder / "panoptic.json").rename(folder / "x.json")
    (folder / "y.json").write_text("{}")
    with pytest.raises(InputError, match="needs one JSON file"):
        PredictedFolder(folder, dataset)
