from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from retclip.core.errors import InputError
from retclip.evaluation.semantic import SemanticConfusion

CLASSES = 4
TRUTH = arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 3, 255]))
PREDICTED = arrays(np.int32, (5, 6), elements=st.integers(-1, CLASSES - 1))


@given(truth=TRUTH, predicted=PREDICTED)
def test_equals_the_definition_pixel_by_pixel(truth, predicted):
    confusion = SemanticConfusion(CLASSES)
    confusion.add(truth, predicted, "x")
    result = confusion.result()
    pixels = [(t, p) for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True) if t != 255]
    if not pixels:
        assert math.isnan(result.miou)
        return
    ious, hits = [], 0
    for c in range(CLASSES):
        both = sum(t == p == c for t, p in pixels)
        either = sum(c in (t, p) for t, p in pixels)
        hits += both
        if any(t == c for t, _ in pixels):
            ious.append(both / either)
            assert result.iou[c] == both / either
        else:
            assert math.isnan(result.iou[c])
    assert result.miou == pytest.approx(sum(ious) / len(ious), abs=1e-12)
    assert result.pacc == pytest.approx(hits / len(pixels), abs=1e-12)


@given(truth=TRUTH, predicted=PREDICTED)
def test_parts_merge_to_the_whole(truth, predicted):
    whole, first, second = (SemanticConfusion(CLASSES) for _ in range(3))
    whole.add(truth, predicted, "x")
    first.add(truth[:2], predicted[:2], "x")
    second.add(truth[2:], predicted[2:], "x")
    first.merge(second)
    np.testing.assert_array_equal(first.matrix, whole.matrix)


def test_a_class_that_is_predicted_but_never_true_does_not_count():
    confusion = SemanticConfusion(3)
    confusion.add(np.array([[0, 0, 1, 255]]), np.array([[0, 2, 1, 2]]), "x")
    result = confusion.result()
    assert result.miou == 0.75
    assert result.mean(np.array([True, False, True])) == 0.5
    assert math.isnan(result.mean(np.array([False, False, True])))


def test_pixels_without_prediction_are_wrong_not_ignored():
    confusion = SemanticConfusion(2)
    confusion.add(np.array([[0, 0]]), np.array([[0, -1]]), "x")
    assert (confusion.result().miou, confusion.result().pacc) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[0, 1]], [[0]], "prediction of a.jpg"),
        ([[0, 3]], [[0, 0]], "truth of a.jpg"),
        ([[0, 0]], [[0, -2]], "prediction of a.jpg"),
    ],
)
def test_maps_that_do_not_fit_are_named(truth, predicted, message):
    with pytest.raises(InputError, match=message):
        SemanticConfusion(2).add(np.array(truth), np.array(predicted), "a.jpg")


@pytest.mark.golden
def test_detectron2_golden(goldens):
    case = goldens.json("semseg_eval.json")
    maps = load_file(goldens.path("semseg_eval.safetensors"))
    confusion = SemanticConfusion(case["num_classes"])
    for number, (truth, predicted) in enumerate(zip(maps["gt"], maps["pred"], strict=True)):
        confusion.add(truth, predicted, str(number), case["ignore_label"])
    np.testing.assert_array_equal(confusion.matrix, maps["conf_matrix"])
    result, expected = confusion.result(), case["results"]
    for key, value in (("mIoU", result.miou), ("fwIoU", result.fwiou), ("mACC", result.macc), ("pACC", result.pacc)):
        assert 100 * value == pytest.approx(expected[key], abs=1e-10)
    names = [key.removeprefix("IoU-") for key in expected if key.startswith("IoU-")]
    np.testing.assert_allclose(100 * result.iou, [expected[f"IoU-{name}"] for name in names], atol=1e-10)
    np.testing.assert_allclose(100 * result.accuracy, [expected[f"ACC-{name}"] for name in names], atol=1e-10)
