from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from retclip.core.errors import InputError
from retclip.evaluation.datasets import open_evaluation_set
from retclip.evaluation.preparation import city_segments, paste, prepare

CLASSES = np.array([[1, 1, 20, 20], [1, 0, 20, 20]], np.uint8)  # wall (stuff), chairs (thing), unlabelled


def write_ade(root: Path, instances: bool = True) -> Path:
    for kind in ("images", "annotations", *(["annotations_instance"] if instances else [])):
        (root / kind / "validation").mkdir(parents=True)
    rows = [f"{n}\t0.1\t10\t1\tclass {n}" for n in range(1, 151)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "\n".join(rows) + "\n")
    Image.new("RGB", (4, 2)).save(root / "images" / "validation" / "ADE_val_1.jpg")
    Image.fromarray(CLASSES).save(root / "annotations" / "validation" / "ADE_val_1.png")
    if instances:
        colours = np.zeros((2, 4, 3), np.uint8)
        colours[:, 2], colours[:, 3], colours[0, 1] = (7, 1, 0), (7, 2, 0), (7, 1, 0)
        Image.fromarray(colours).save(root / "annotations_instance" / "validation" / "ADE_val_1.png")
        (root / "ade20k_instance_catid_mapping.txt").write_text("Instance100 SceneParse150 Full\n7\t20\t471\n")
    return root


def test_ade20k_things_lie_over_stuff_and_the_set_opens(tmp_path):
    steps = []
    made = prepare("ade20k-panoptic", write_ade(tmp_path), "val", True, lambda done, total: steps.append((done, total)))
    assert (made.images, made.segments, made.things, steps) == (1, 3, 2, [(1, 1)])
    opened = open_evaluation_set("ade20k-panoptic", tmp_path, "val")
    truth = opened.truth(opened.images[0])
    # The first chair also covers a wall pixel; pixel (1, 1) belongs to nobody.
    assert truth.semantic.tolist() == [[0, 19, 19, 19], [0, -1, 19, 19]]
    assert sorted(s.category_id for s in truth.segments) == [0, 19, 19]
    assert truth.ids[0, 1] == truth.ids[0, 2]
    assert truth.ids[0, 2] != truth.ids[0, 3]


def test_ade20k_instance_file_holds_the_visible_masks(tmp_path):
    made = prepare("ade20k-panoptic", write_ade(tmp_path), "val", True, lambda done, total: None)
    content = json.loads(made.instances.read_text())
    assert len(content["categories"]) == 100
    areas = [
        int(coco_mask.area({**a["segmentation"], "counts": a["segmentation"]["counts"].encode()}))
        for a in content["annotations"]
    ]
    assert areas == [a["area"] for a in content["annotations"]] == [3, 2]


def test_an_incomplete_tree_is_refused_unless_asked(tmp_path):
    with pytest.raises(InputError, match=r"holds 1 pictures") as caught:
        prepare("ade20k-panoptic", write_ade(tmp_path), "val", False, lambda done, total: None)
    assert "2,000" in str(caught.value)
    assert not list(tmp_path.glob("*.json"))


def test_ade20k_without_instance_images_names_what_is_missing(tmp_path):
    with pytest.raises(InputError, match="annotations_instance"):
        prepare("ade20k-panoptic", write_ade(tmp_path, instances=False), "val", True, lambda done, total: None)


def test_sets_that_come_prepared_say_so(tmp_path):
    with pytest.raises(InputError, match="needs no preparation"):
        prepare("coco-panoptic", tmp_path, "val", True, lambda done, total: None)


def test_cityscapes_instances_groups_and_ignored_labels():
    ids = np.array([[7, 24001, 24002, 26, 4, 0]], np.int32)
    found = [(s.category_id, s.is_thing, s.is_crowd, s.mask.tolist()[0].index(True)) for s in city_segments(ids)]
    # Road is stuff, two persons, a group of cars; static (4) and unlabelled (0) are not evaluated.
    assert found == [(0, False, False, 0), (13, True, True, 3), (11, True, False, 1), (11, True, False, 2)]


def test_cityscapes_tree_opens_with_its_photos(tmp_path):
    for kind in ("gtFine", "leftImg8bit"):
        (tmp_path / kind / "val" / "ulm").mkdir(parents=True)
    ids = np.array([[7, 24001], [7, 26]], np.uint16)
    Image.fromarray(ids).save(tmp_path / "gtFine/val/ulm/ulm_000000_000019_gtFine_instanceIds.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "leftImg8bit/val/ulm/ulm_000000_000019_leftImg8bit.png")
    prepare("cityscapes", tmp_path, "val", True, lambda done, total: None)
    opened = open_evaluation_set("cityscapes", tmp_path, "val")
    truth = opened.truth(opened.images[0])
    assert truth.semantic.tolist() == [[0, 11], [0, 13]]
    assert [s.is_crowd for s in truth.segments] == [False, True, False]
    assert opened.images[0].path.name == "ulm_000000_000019_leftImg8bit.png"


def test_covered_segments_vanish():
    from retclip.evaluation.preparation import RawSegment

    whole, half = np.ones((1, 2), bool), np.array([[True, False]])
    ids, left = paste((1, 2), [RawSegment(half, 0, False), RawSegment(whole, 1, True)])
    assert ids.tolist() == [[2, 2]]
    assert [number for number, _ in left] == [2]
