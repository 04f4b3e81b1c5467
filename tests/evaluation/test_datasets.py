from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.core.panoptic import ids_to_rgb
from retclip.core.vocabulary import Category, Vocabulary
from retclip.evaluation.datasets import dataset_names, load_seen_classes, open_evaluation_set
from retclip.evaluation.panoptic_quality import PanopticQuality
from retclip.vocabularies import load_vocabulary

IDS = np.array([[0, 70000], [5, 5]], np.int32)


def write_own(root: Path, **changes) -> Path:
    (root / "images").mkdir(exist_ok=True)
    (root / "panoptic").mkdir(exist_ok=True)
    Image.new("RGB", (2, 2)).save(root / "images" / "a.jpg")
    Image.fromarray(ids_to_rgb(IDS)).save(root / "panoptic" / "a.png")
    segments = [{"id": 70000, "category_id": 3, "iscrowd": 1}, {"id": 5, "category_id": 9, "iscrowd": 0}]
    content = {
        "images": [{"id": "a", "file_name": "a.jpg"}],
        "annotations": [{"image_id": "a", "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 3, "name": "tree", "isthing": 0}, {"id": 9, "name": "kite", "isthing": 1}],
    }
    (root / "panoptic.json").write_text(json.dumps(content | changes))
    return root


def test_an_own_folder_opens_and_truth_is_exact(tmp_path):
    opened = open_evaluation_set("panoptic", write_own(tmp_path), "val", "tree, kite")
    truth = opened.truth(opened.images[0])
    assert truth.ids.tolist() == IDS.tolist()
    assert truth.semantic.tolist() == [[-1, 0], [1, 1]]
    assert [s.is_crowd for s in truth.segments] == [True, False]
    assert (opened.kind, opened.vocabulary.names) == ("panoptic", ("tree", "kite"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 3, "name": "tree", "isthing": 0}]}, "categories of image a"),
        ({"categories": [{"id": 3, "name": "tree"}]}, "KeyError"),
        ({"images": []}, "KeyError"),
        ({"images": [{"id": "a", "file_name": "b.jpg"}]}, "None of its 1 photos"),
        (
            {"annotations": [{"image_id": "a", "file_name": "z.png", "segments_info": []}]},
            r"1 id maps are missing, among them z\.png",
        ),
        ({"annotations": [{"image_id": "a", "file_name": "../../a.png"}]}, "KeyError"),
    ],
)
def test_inconsistent_files_are_named(tmp_path, changes, message):
    with pytest.raises(InputError, match="E162") as caught:
        open_evaluation_set("panoptic", write_own(tmp_path, **changes), "val")
    assert caught.match(message)


def test_names_in_files_cannot_point_outside(tmp_path):
    outside = tmp_path / "images"
    own = tmp_path / "own"
    own.mkdir()
    write_own(own, images=[{"id": "a", "file_name": "../../images/secret.jpg"}])
    outside.mkdir()
    Image.new("RGB", (2, 2)).save(outside / "secret.jpg")
    with pytest.raises(InputError, match="None of its 1 photos"):
        open_evaluation_set("panoptic", own, "val")


def test_grey_maps_are_refused(tmp_path):
    opened = open_evaluation_set("panoptic", write_own(tmp_path), "val")
    Image.fromarray(IDS.astype(np.uint8)).save(tmp_path / "panoptic" / "a.png")
    with pytest.raises(ImageError, match="no panoptic map"):
        opened.truth(opened.images[0])


def test_voc_background_and_boundary_are_ignored(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets/Segmentation/val.txt").write_text("p\nlost\n")
    Image.new("RGB", (4, 1)).save(base / "JPEGImages/p.jpg")
    Image.fromarray(np.array([[0, 1, 20, 255]], np.uint8)).save(base / "SegmentationClass/p.png")
    opened = open_evaluation_set("pascal-voc", tmp_path, "val")
    assert opened.truth(opened.images[0]).semantic.tolist() == [[-1, 0, 19, -1]]
    assert (opened.kind, opened.missing, len(opened.vocabulary)) == ("semantic", ("lost.jpg",), 20)


@pytest.mark.parametrize(
    ("name", "folders"),
    [("semantic", ("images", "labels")), ("pascal-context", ("images/validation", "annotations_ctx59/validation"))],
)
def test_label_folders_take_their_classes_from_a_list(tmp_path, name, folders):
    photos, labels = (tmp_path / folder for folder in folders)
    photos.mkdir(parents=True)
    labels.mkdir(parents=True)
    Image.new("RGB", (3, 1)).save(photos / "p.jpg")
    Image.fromarray(np.array([[1, 0, 255]], np.uint8)).save(labels / "p.png")
    opened = open_evaluation_set(name, tmp_path, "val", "sky, sea")
    truth = opened.truth(opened.images[0])
    assert truth.semantic.tolist() == [[1, 0, -1]]
    assert [s.id for s in truth.segments] == [1, 2]
    with pytest.raises(InputError, match="No class list"):
        open_evaluation_set(name, tmp_path, "val")


@pytest.mark.parametrize("name", dataset_names())
def test_an_empty_folder_says_what_was_looked_for(tmp_path, name):
    with pytest.raises(InputError, match="E162") as caught:
        open_evaluation_set(name, tmp_path, "val", "sky")
    assert caught.value.why
    assert caught.value.fix


def test_unknown_sets_and_places(tmp_path, monkeypatch):
    monkeypatch.delenv("RETCLIP_DATA", raising=False)
    with pytest.raises(InputError, match="Unknown evaluation set 'coco-panoptc'") as caught:
        open_evaluation_set("coco-panoptc", tmp_path, "val")
    assert "Did you mean 'coco-panoptic'" in caught.value.why
    with pytest.raises(InputError, match="No folder given"):
        open_evaluation_set("cityscapes", None, "val")


def test_the_seen_list_of_ade_has_44_things_and_20_stuff():
    vocabulary = load_vocabulary("@ade150")
    seen = load_seen_classes("ade150_coco_fcclip64", vocabulary)
    assert len(seen) == 64
    assert sum(vocabulary[column].is_thing for column in seen) == 44
    assert {0, 12, 147, 148} <= seen
    assert not {13, 22, 149} & seen


def test_a_seen_file_is_read_and_checked(tmp_path):
    vocabulary = Vocabulary("v", (Category(4, ("sky", "clouds")), Category(5, ("sea",))))
    path = tmp_path / "seen.txt"
    path.write_text("# head\nClouds  # a synonym\n\n")
    assert load_seen_classes(str(path), vocabulary) == {0}
    path.write_text("sky\nmoon\n")
    with pytest.raises(InputError, match="E164") as caught:
        load_seen_classes(str(path), vocabulary)
    assert "Line 2: 'moon'" in caught.value.why
    with pytest.raises(InputError, match="no seen list"):
        load_seen_classes("nothing", vocabulary)


@pytest.mark.photos
def test_real_photos_score_one_against_themselves(photos):
    opened = open_evaluation_set("coco-panoptic", photos, "val")
    quality = PanopticQuality(opened.vocabulary)
    for image in opened.images[:10]:
        truth = opened.truth(image)
        plain = [s for s in truth.segments if not s.is_crowd]
        crowds = [s.id for s in truth.segments if s.is_crowd]
        quality.add(
            truth.ids, truth.segments, np.where(np.isin(truth.ids, crowds), 0, truth.ids), plain, image.image_id
        )
    assert quality.result().all.pq == 1.0
    assert len(opened.vocabulary) == 133
    assert {"tree-merged", "trees"} <= set(
        opened.vocabulary.categories[[c.id for c in opened.vocabulary].index(184)].names
    )
