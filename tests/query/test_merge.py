"""Merging: the official maps, and both rules against literal restatements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import MergeSettings
from retclip.query.merge import merge_panoptic, semantic_map, thing_instances
from tests.goldens import Goldens

# Two things, two kinds of stuff.
WORDS = Vocabulary(
    "words",
    (
        Category(7, ("cat",)),
        Category(3, ("sky",), is_thing=False),
        Category(9, ("dog",)),
        Category(0, ("sea",), is_thing=False),
    ),
)


def golden_cases(goldens: Goldens) -> Iterator[tuple[str, dict[str, Any], dict[str, Tensor], Vocabulary]]:
    facts = goldens.json("inference_functions.json")
    arrays = load_file(goldens.path("inference_functions.safetensors"))
    things = set(facts["thing_contiguous_ids"])
    classes = Vocabulary("ade", tuple(Category(c, (f"c{c}",), c in things) for c in range(facts["num_classes"])))
    for name, case in facts.items():
        own = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
        if isinstance(case, dict) and own:  # a compact set holds the arrays of some cases only
            yield name, case, own, classes


def proposals_of(arrays: dict[str, Tensor]) -> tuple[MaskSet, Tensor, Tensor]:
    """Masks, class scores and void: the official code takes a softmax of stored logarithms."""
    logits = arrays["mask_pred"]
    probability = arrays["mask_cls"].softmax(dim=1)
    return MaskSet(logits, tuple(logits.shape[1:]), "golden"), probability[:, :-1], probability[:, -1]


@pytest.mark.golden
def test_panoptic_maps_are_the_official_ones(goldens: Goldens) -> None:
    seen = 0
    for name, case, arrays, classes in golden_cases(goldens):
        masks, scores, void = proposals_of(arrays)
        settings = MergeSettings("argmax", case["object_mask_threshold"], case["overlap_threshold"])
        merged = merge_panoptic(masks, scores, void, classes, settings)
        expected = [(item["id"], item["isthing"], item["category_id"]) for item in case["segments_info"]]
        assert [(s.id, s.is_thing, s.category_id) for s in merged.panoptic.segments] == expected, name
        assert np.array_equal(merged.panoptic.ids, arrays["panoptic_seg"].numpy()), name
        seen += 1
    assert seen > 0


@pytest.mark.golden
def test_semantic_maps_are_the_official_ones(goldens: Goldens) -> None:
    for name, _, arrays, _ in golden_cases(goldens):
        masks, scores, _ = proposals_of(arrays)
        assert np.array_equal(semantic_map(masks, scores), arrays["semseg_argmax"].numpy().astype(np.int32)), name


@pytest.mark.golden
def test_instances_are_the_official_ones(goldens: Goldens) -> None:
    for name, case, arrays, classes in golden_cases(goldens):
        masks, scores, _ = proposals_of(arrays)
        found = thing_instances(masks, scores, classes, case["topk"])
        order = arrays["inst.scores"].sort(descending=True, stable=True).indices
        np.testing.assert_allclose(found.score, arrays["inst.scores"][order].numpy(), atol=1e-4, err_msg=name)
        # The order of equal scores is unspecified, so each official instance is looked up by class, mask and score.
        rows = [(int(c), m.tobytes()) for c, m in zip(found.category_id, found.masks, strict=True)]
        for row in order.tolist():
            wanted = int(arrays["inst.classes"][row]), arrays["inst.masks"][row].numpy().astype(bool).tobytes()
            assert wanted in rows, name
            assert abs(found.score[rows.index(wanted)] - float(arrays["inst.scores"][row])) < 1e-4


@st.composite
def proposals(draw: st.DrawFn) -> tuple[MaskSet, Tensor, Tensor | None]:
    """Up to five overlapping masks, bool or logits at half or full size, with scores that may tie."""
    count = draw(st.integers(0, 5))
    seed = draw(st.integers(0, 10_000))
    random = torch.Generator().manual_seed(seed)
    size = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    if draw(st.booleans()):
        masks = torch.rand(count, *size, generator=random) < 0.5
    else:
        grid = size if draw(st.booleans()) else ((size[0] + 1) // 2, (size[1] + 1) // 2)
        masks = torch.randn(count, *grid, generator=random) * 3
    # Few distinct values, so that equal scores occur.
    scores = (torch.rand(count, len(WORDS), generator=random) * 4).round() / 4
    void = torch.rand(count, generator=random).round(decimals=1) if draw(st.booleans()) else None
    return MaskSet(masks, size, "test"), scores, void


SETTINGS = st.builds(
    MergeSettings,
    rule=st.sampled_from(["argmax", "greedy"]),
    score_threshold=st.sampled_from([0.0, 0.5, 0.75]),
    overlap_threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)


def kept_rows(scores: Tensor, void: Tensor | None, settings: MergeSettings) -> list[int]:
    return [
        row
        for row in range(len(scores))
        if scores[row].max() > settings.score_threshold and (void is None or scores[row].max() > void[row])
    ]


def literal_argmax(masks: MaskSet, scores: Tensor, void: Tensor | None, settings: MergeSettings) -> np.ndarray:
    """FC-CLIP's rule, pixel by pixel (Mask2Former panoptic_inference)."""
    probability = masks.band(0, masks.image_size[0])
    kept = kept_rows(scores, void, settings)
    ids = np.zeros(masks.image_size, dtype=np.int32)
    if not kept:
        return ids
    owner = np.empty(masks.image_size, dtype=int)
    for y in range(owner.shape[0]):
        for x in range(owner.shape[1]):
            values = [float(scores[row].max() * probability[row, y, x]) for row in kept]
            owner[y, x] = values.index(max(values))
    stuff: dict[int, int] = {}
    number = 0
    for place, row in enumerate(kept):
        column = int(scores[row].argmax())
        inside = probability[row].numpy() >= 0.5
        mine = owner == place
        if not (mine.any() and inside.any() and (mine & inside).any()):
            continue
        if mine.sum() / inside.sum() < settings.overlap_threshold:
            continue
        if not WORDS[column].is_thing and column in stuff:
            ids[mine & inside] = stuff[column]
            continue
        number += 1
        ids[mine & inside] = number
        if not WORDS[column].is_thing:
            stuff[column] = number
    return ids


def literal_greedy(masks: MaskSet, scores: Tensor, void: Tensor | None, settings: MergeSettings) -> np.ndarray:
    """Panoptic FPN's rule: best first, each takes what is free; numbered in the order of the proposals."""
    inside = masks.band(0, masks.image_size[0]).numpy() >= 0.5
    kept = kept_rows(scores, void, settings)
    free = np.ones(masks.image_size, dtype=bool)
    taken: dict[int, np.ndarray] = {}
    for row in sorted(kept, key=lambda row: (-float(scores[row].max()), row)):
        gain = inside[row] & free
        if gain.any() and gain.sum() >= settings.overlap_threshold * inside[row].sum():
            taken[row] = gain
            free &= ~gain
    ids = np.zeros(masks.image_size, dtype=np.int32)
    stuff: dict[int, int] = {}
    number = 0
    for row in sorted(taken):
        column = int(scores[row].argmax())
        if not WORDS[column].is_thing and column in stuff:
            ids[taken[row]] = stuff[column]
            continue
        number += 1
        ids[taken[row]] = number
        if not WORDS[column].is_thing:
            stuff[column] = number
    return ids


@given(proposals(), SETTINGS)
def test_maps_follow_the_literal_rules(case: tuple[MaskSet, Tensor, Tensor | None], settings: MergeSettings) -> None:
    masks, scores, void = case
    literal = literal_argmax if settings.rule == "argmax" else literal_greedy
    ids = merge_panoptic(masks, scores, void, WORDS, settings).panoptic.ids
    assert np.array_equal(ids, literal(masks, scores, void, settings))


@given(proposals(), SETTINGS)
def test_segments_describe_their_pixels(case: tuple[MaskSet, Tensor, Tensor | None], settings: MergeSettings) -> None:
    masks, scores, void = case
    merged = merge_panoptic(masks, scores, void, WORDS, settings)
    segments = merged.panoptic.segments
    assert [segment.id for segment in segments] == list(range(1, len(segments) + 1))
    assert len(merged.proposals) == len(segments)
    columns = {category.id: column for column, category in enumerate(WORDS)}
    for segment, row in zip(segments, merged.proposals, strict=True):
        rows, cols = np.nonzero(merged.panoptic.ids == segment.id)
        assert segment.area == len(rows)
        assert segment.box == (
            cols.min(), rows.min(), cols.max() - cols.min() + 1, rows.max() - rows.min() + 1
        )  # fmt: skip
        assert segment.is_thing == WORDS[columns[segment.category_id]].is_thing
        assert segment.category_id == WORDS[int(scores[row].argmax())].id
        assert segment.score == pytest.approx(float(scores[row].max()))
    kinds = [segment.category_id for segment in segments if not segment.is_thing]
    assert len(kinds) == len(set(kinds))


@given(proposals(), SETTINGS, st.integers(1, 40))
def test_bands_change_nothing(
    case: tuple[MaskSet, Tensor, Tensor | None], settings: MergeSettings, most_values: int
) -> None:
    masks, scores, void = case
    whole = (
        merge_panoptic(masks, scores, void, WORDS, settings),
        semantic_map(masks, scores),
        thing_instances(masks, scores, WORDS, 3),
    )
    with pytest.MonkeyPatch.context() as patch:
        bands = MaskSet.bands
        patch.setattr(MaskSet, "bands", lambda self, _=0, planes=None: bands(self, most_values, planes))
        parts = (
            merge_panoptic(masks, scores, void, WORDS, settings),
            semantic_map(masks, scores),
            thing_instances(masks, scores, WORDS, 3),
        )
    assert np.array_equal(whole[0].panoptic.ids, parts[0].panoptic.ids)
    assert whole[0].panoptic.segments == parts[0].panoptic.segments
    assert np.array_equal(whole[1], parts[1])
    assert np.array_equal(whole[2].masks, parts[2].masks)
    np.testing.assert_allclose(whole[2].score, parts[2].score, rtol=1e-5)


@given(proposals())
def test_semantic_map_is_the_weighted_sum(case: tuple[MaskSet, Tensor, Tensor | None]) -> None:
    masks, scores, _ = case
    probability = masks.band(0, masks.image_size[0])
    semantic = semantic_map(masks, scores)
    for y in range(semantic.shape[0]):
        for x in range(semantic.shape[1]):
            totals = sum((scores[n] * probability[n, y, x] for n in range(len(masks))), torch.zeros(len(WORDS)))
            if float(totals.max()) == 0:
                assert semantic[y, x] == -1
            else:
                assert float(totals[semantic[y, x]]) == pytest.approx(float(totals.max()), rel=1e-5)


@given(proposals(), st.integers(1, 12))
def test_instances_are_the_best_pairs_that_are_things(case: tuple[MaskSet, Tensor, Tensor | None], most: int) -> None:
    masks, scores, _ = case
    found = thing_instances(masks, scores, WORDS, most)
    probability = masks.band(0, masks.image_size[0])
    pairs = sorted(((float(scores[n, c]), -n, -c) for n in range(len(masks)) for c in range(len(WORDS))), reverse=True)[
        :most
    ]
    expected = []
    for score, n, c in pairs:
        if WORDS[-c].is_thing and score > 0:
            inside = probability[-n] > 0.5
            mean = float(probability[-n][inside].sum() / (int(inside.sum()) + 1e-6))
            expected.append((score * mean, WORDS[-c].id, inside.numpy().tobytes()))
    assert sorted((round(s, 4), c, m) for s, c, m in expected) == sorted(
        (round(float(s), 4), int(c), m.tobytes())
        for s, c, m in zip(found.score, found.category_id, found.masks, strict=True)
    )
    assert list(found.score) == sorted(found.score, reverse=True)


def test_a_proposal_less_likely_than_nothing_is_dropped() -> None:
    masks = MaskSet(torch.ones(1, 2, 2, dtype=torch.bool), (2, 2), "test")
    scores = torch.tensor([[0.4, 0.1, 0.1, 0.1]])
    assert len(merge_panoptic(masks, scores, torch.tensor([0.3]), WORDS, MergeSettings()).panoptic.segments) == 1
    assert merge_panoptic(masks, scores, torch.tensor([0.5]), WORDS, MergeSettings()).panoptic.segments == ()


def test_greedy_leaves_to_the_next_what_the_best_could_not_keep() -> None:
    left, both = torch.tensor([[True, True, False, False]]), torch.tensor([[True, True, True, True]])
    masks = MaskSet(torch.stack([left, both]), (1, 4), "test")
    scores = torch.tensor([[0.9, 0, 0, 0], [0.5, 0, 0.6, 0]])
    strict = merge_panoptic(masks, scores, None, WORDS, MergeSettings("greedy", overlap_threshold=0.8))
    assert strict.panoptic.ids.tolist() == [[1, 1, 0, 0]]
    loose = replace(MergeSettings("greedy"), overlap_threshold=0.5)
    assert merge_panoptic(masks, scores, None, WORDS, loose).panoptic.ids.tolist() == [[1, 1, 2, 2]]
