from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.numpy import load_file

from retclip.core.errors import InputError
from retclip.core.results import Instances
from retclip.evaluation.instance_ap import MaskAveragePrecision, TrueInstances

SIZE = (30, 40)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    masks = np.zeros((count, *SIZE), dtype=bool)
    for mask in masks:
        top, left = rng.integers(0, 20), rng.integers(0, 30)
        mask[top : top + rng.integers(3, 12), left : left + rng.integers(3, 12)] = True
    return masks


def random_image(rng: np.random.Generator) -> tuple[TrueInstances, Instances]:
    truth = TrueInstances(random_boxes(rng, n := int(rng.integers(0, 5))), rng.integers(0, 3, n), rng.random(n) < 0.2)
    kept = rng.random(n) < 0.7
    moved = np.roll(truth.masks[kept], int(rng.integers(0, 3)), axis=2)
    masks = np.concatenate([moved, random_boxes(rng, extra := int(rng.integers(0, 3)))])
    categories = np.concatenate([truth.category_id[kept], rng.integers(0, 3, extra)])
    return truth, Instances(masks, categories, rng.random(len(masks)).astype(np.float32))


def coded(mask: np.ndarray) -> dict:
    return {"area": int(mask.sum()), "segmentation": coco_mask.encode(np.asfortranarray(mask))}


def whole_cocoeval(images) -> tuple[float, ...]:
    """pycocotools used as its own manual says, everything in memory."""
    annotations, detections = [], []
    for number, (truth, found) in enumerate(images):
        for mask, category, crowd in zip(truth.masks, truth.category_id, truth.is_crowd, strict=True):
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": int(category)}
            annotations.append(entry | {"iscrowd": int(crowd)} | coded(mask))
        for mask, category, score in zip(found.masks, found.category_id, found.score, strict=True):
            detections.append({"image_id": number, "category_id": int(category), "score": float(score)} | coded(mask))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in range(len(images))],
            "annotations": annotations,
            "categories": [{"id": category} for category in range(3)],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(detections), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return tuple(float(value) for value in evaluation.stats)


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_streaming_equals_pycocotools_on_everything_at_once(seed):
    rng = np.random.default_rng(seed)
    images = [random_image(rng) for _ in range(4)]
    if not any(len(found.masks) for _, found in images):
        return
    first, second = MaskAveragePrecision([0, 1, 2]), MaskAveragePrecision([0, 1, 2])
    for number, (truth, found) in enumerate(images):
        (first if number < 2 else second).add(truth, found, str(number))
    first.merge(second)
    assert first.result().stats == whole_cocoeval(images)


def test_truth_found_exactly_scores_one_and_prints_nothing(capsys):
    rng = np.random.default_rng(0)
    truth = TrueInstances(random_boxes(rng, 2), np.array([4, 7]), np.zeros(2, bool))
    average = MaskAveragePrecision([4, 5, 7])
    average.add(truth, Instances(truth.masks, truth.category_id, np.ones(2, np.float32)), "x")
    assert average.result().mean == pytest.approx(1.0, abs=1e-12)
    assert average.result().ap.tolist() == pytest.approx([1.0, -1.0, 1.0], abs=1e-12)
    assert capsys.readouterr().out == ""


def test_no_image_gives_no_figure():
    assert MaskAveragePrecision([1]).result().mean == -1.0


def test_sizes_that_differ_are_named():
    truth = TrueInstances(np.ones((1, 3, 4), bool), np.array([0]), np.zeros(1, bool))
    found = Instances(np.ones((1, 4, 3), bool), np.array([0]), np.ones(1, np.float32))
    with pytest.raises(InputError, match=r"instances of a\.jpg"):
        MaskAveragePrecision([0]).add(truth, found, "a.jpg")


@pytest.mark.golden
def test_pycocotools_golden(goldens):
    case = goldens.json("instance_ap.json")
    masks = load_file(goldens.path("instance_ap.safetensors"))
    average = MaskAveragePrecision(range(case["num_classes"]))
    for image in range(case["num_images"]):
        truth, rows = chosen(case["gt"], image)
        found, places = chosen(case["dt"], image)
        average.add(
            TrueInstances(masks["gt_masks"][rows] > 0, column(truth, "category_id"), column(truth, "iscrowd") > 0),
            Instances(
                masks["dt_masks"][places] > 0, column(found, "category_id"), np.array([e["score"] for e in found])
            ),
            str(image),
        )
    result = average.result()
    np.testing.assert_allclose(result.stats, case["stats"], atol=1e-12)
    np.testing.assert_allclose(result.ap, case["per_category_AP"], atol=1e-12)


def chosen(entries, image):
    rows = [row for row, entry in enumerate(entries) if entry["image_id"] == image]
    return [entries[row] for row in rows], np.array(rows, dtype=np.int64)


def column(entries, key):
    return np.array([entry[key] for entry in entries], dtype=np.int64)
