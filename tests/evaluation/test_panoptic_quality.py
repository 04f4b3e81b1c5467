from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary
from retclip.evaluation.panoptic_quality import MapSegment, PanopticQuality

CATEGORIES = [3, 5, 8, 13]
VOCABULARY = Vocabulary("test", tuple(Category(i, (f"c{i}",), i != 8) for i in CATEGORIES))


def as_segments(entries):
    return [MapSegment(e["id"], e["category_id"], bool(e.get("iscrowd", 0))) for e in entries]


def count(quality: PanopticQuality, pair) -> None:
    truth, truth_segments, predicted, predicted_segments = pair
    quality.add(truth, as_segments(truth_segments), predicted, as_segments(predicted_segments), "x.jpg")


def test_thousand_random_pairs_with_crowd_and_void_equal_the_reference_bit_for_bit(reference, random_pair):
    fast, slow = PanopticQuality(VOCABULARY), reference.ReferenceQuality()
    crowds = matches = voids = 0
    for seed in range(1000):
        pair = random_pair(seed, CATEGORIES)
        count(fast, pair)
        slow.add(*pair)
        crowds += any(s["iscrowd"] for s in pair[1])
        voids += bool((pair[0] == 0).any())
    for column, category in enumerate(CATEGORIES):
        tally = slow.tallies[category]
        got = (fast.counts.tp[column], fast.counts.fp[column], fast.counts.fn[column], fast.counts.iou[column])
        assert got == (tally.tp, tally.fp, tally.fn, tally.iou)
        matches += tally.tp
    expected, result = slow.averages(CATEGORIES), fast.result().all
    assert (result.pq, result.sq, result.rq, result.n) == tuple(expected.values())
    assert min(crowds, voids) > 300
    assert matches > 500


def test_several_crowds_of_one_category_only_the_last_listed_excuses():
    truth = np.array([[1, 1, 2, 2]])
    predicted = np.array([[9, 9, 0, 0]])
    vocabulary = Vocabulary("v", (Category(0, ("a",)),))
    first_last = [MapSegment(2, 0, True), MapSegment(1, 0, True)]
    for order, false_positives in ((first_last, 0), (first_last[::-1], 1)):
        quality = PanopticQuality(vocabulary)
        quality.add(truth, order, predicted, [MapSegment(9, 0)], "x")
        assert (quality.counts.fp[0], quality.counts.fn[0]) == (false_positives, 0)


def test_half_on_void_is_still_a_false_positive():
    vocabulary = Vocabulary("v", (Category(0, ("a",)), Category(1, ("b",))))
    for void, expected in ((2, 1), (3, 0)):
        truth = np.array([[0] * void + [1] * (4 - void)])
        quality = PanopticQuality(vocabulary)
        quality.add(truth, [MapSegment(1, 1)], np.full((1, 4), 7), [MapSegment(7, 0)], "x")
        assert quality.counts.fp[0] == expected


def test_an_iou_of_exactly_one_half_is_no_match():
    quality = PanopticQuality(Vocabulary("v", (Category(0, ("a",)),)))
    quality.add(np.array([[1, 1]]), [MapSegment(1, 0)], np.array([[1, 0]]), [MapSegment(1, 0)], "x")
    assert (quality.counts.tp[0], quality.counts.fp[0], quality.counts.fn[0]) == (0, 1, 1)


@given(seed=st.integers(0, 10_000))
def test_truth_against_itself_is_perfect_and_parts_add_up(seed, random_pair):
    truth, segments, predicted, predicted_segments = random_pair(seed, CATEGORIES)
    plain = [{**segment, "iscrowd": 0} for segment in segments]
    perfect = PanopticQuality(VOCABULARY)
    count(perfect, (truth, plain, truth, plain))
    assert not perfect.counts.fp.any()
    assert not perfect.counts.fn.any()
    assert perfect.result().all.pq == (1.0 if plain else pytest.approx(math.nan, nan_ok=True))

    left, right, both = (PanopticQuality(VOCABULARY) for _ in range(3))
    count(left, (truth, segments, predicted, predicted_segments))
    count(right, (truth, plain, truth, plain))
    count(both, (truth, segments, predicted, predicted_segments))
    count(both, (truth, plain, truth, plain))
    left.merge(right)
    np.testing.assert_array_equal(left.counts.tp, both.counts.tp)
    np.testing.assert_allclose(left.counts.iou, both.counts.iou, rtol=1e-12)
    # What is annotated and no crowd is either found or missed.
    assert left.counts.tp.sum() + left.counts.fn.sum() == len(plain) + sum(not s["iscrowd"] for s in segments)


def test_subset_means_leave_out_classes_that_never_occur():
    quality = PanopticQuality(VOCABULARY)
    quality.add(
        np.array([[1, 2]]),
        [MapSegment(1, 3), MapSegment(2, 5)],
        np.array([[1, 2]]),
        [MapSegment(1, 3), MapSegment(2, 8)],
        "x",
    )
    result = quality.result()
    assert result.occurs.tolist() == [True, True, True, False]
    assert result.pq.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert result.mean(np.array([True, False, False, True])).n == 1
    assert (result.things.n, result.stuff.n, result.all.pq) == (2, 1, 1 / 3)


@pytest.mark.parametrize(
    ("ids", "segments", "message"),
    [
        ([[1, 2]], [MapSegment(1, 3)], r"ids \[2\] are in the map but not in the list"),
        ([[1, 1]], [MapSegment(1, 3), MapSegment(4, 3)], r"ids \[4\] are listed but not in the map"),
        ([[1, 1]], [MapSegment(1, 99)], r"Categories \[99\]"),
        ([[1, 1]], [MapSegment(1, 3), MapSegment(1, 5)], r"ids \[1\] are listed twice"),
        ([[1, 1, 1]], [MapSegment(1, 3)], "3 pixels"),
        ([[0, 0]], [MapSegment(0, 3)], r"\[0\] are not in 1"),
    ],
)
def test_predictions_that_cannot_be_scored_name_the_image(ids, segments, message):
    quality = PanopticQuality(VOCABULARY)
    with pytest.raises(InputError, match=r"E161 The prediction of street\.jpg") as caught:
        quality.add(np.array([[1, 1]]), [MapSegment(1, 3)], np.array(ids), segments, "street.jpg")
    assert caught.match(message)
    assert not quality.counts.tp.any()


def test_a_refused_image_leaves_nothing_behind():
    quality = PanopticQuality(VOCABULARY)
    with pytest.raises(InputError):
        quality.add(np.array([[7, 2]]), [MapSegment(7, 3)], np.array([[1, 1]]), [MapSegment(1, 3)], "x")
    with pytest.raises(InputError):
        quality.add(np.array([[7, 7]]), [MapSegment(5, 3)], np.array([[1, 1]]), [MapSegment(1, 3)], "x")
    with pytest.raises(ValueError, match="ids in"):
        quality.add(np.array([[-1, 1]]), [MapSegment(1, 3)], np.array([[1, 1]]), [MapSegment(1, 3)], "x")


def test_pairs_by_place_include_wrong_classes_but_no_crowds():
    quality = PanopticQuality(VOCABULARY)
    truth = [MapSegment(1, 3), MapSegment(2, 5), MapSegment(4, 8, True)]
    matches = quality.add(
        np.array([[1, 1, 2, 2, 4]]),
        truth,
        np.array([[7, 7, 9, 9, 5]]),
        [MapSegment(7, 3), MapSegment(9, 13), MapSegment(5, 8)],
        "x",
    )
    assert [(p.true_column, p.predicted_column, p.predicted_id) for p in matches.pairs] == [(0, 0, 7), (1, 3, 9)]
    assert matches.counts.tp.tolist() == [1, 0, 0, 0]


@pytest.mark.golden
def test_panopticapi_golden(goldens):
    case = goldens.json("pq.json")
    maps = load_file(goldens.path("pq.safetensors"))
    categories = case["categories"]
    vocabulary = Vocabulary("golden", tuple(Category(c["id"], (c["name"],), bool(c["isthing"])) for c in categories))
    quality = PanopticQuality(vocabulary)
    for number, (truth, predicted) in enumerate(zip(case["gt_annotations"], case["pred_annotations"], strict=True)):
        own = quality.add(
            maps["gt_ids"][number], as_segments(truth["segments_info"]),
            maps["pred_ids"][number], as_segments(predicted["segments_info"]), truth["file_name"],
        ).counts  # fmt: skip
        assert_counts(own, case["stats_per_image"][number], categories)
    assert_counts(quality.counts, case["stats"], categories)
    result = quality.result()
    for name, group in (("All", result.all), ("Things", result.things), ("Stuff", result.stuff)):
        for key, expected in case["results"][name].items():
            assert getattr(group, key) == pytest.approx(expected, abs=1e-12)
    for column, category in enumerate(categories):
        for key, expected in case["results"]["per_class"][str(category["id"])].items():
            assert getattr(result, key)[column] == pytest.approx(expected, abs=1e-12)


def assert_counts(counts, expected, categories):
    nothing = {"iou": 0.0, "tp": 0, "fp": 0, "fn": 0}
    for column, category in enumerate(categories):
        entry = expected.get(str(category["id"]), nothing)
        assert (counts.tp[column], counts.fp[column], counts.fn[column]) == (entry["tp"], entry["fp"], entry["fn"])
        assert counts.iou[column] == pytest.approx(entry["iou"], abs=1e-12)
