import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.core.masks import Frame
from retclip.core.vocabulary import Category, Vocabulary
from retclip.segmenters.fcclip import inference
from retclip.segmenters.fcclip.inference import PanopticThresholds, instances, panoptic_map, semantic_scores
from retclip.segmenters.fcclip.preprocessing import full_size


def vocabulary_of(classes):
    return Vocabulary("v", tuple(Category(10 + i, (f"class {i}",), is_thing=i % 2 == 0) for i in range(classes)))


def random_case(seed, queries, classes, void=0.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(queries, 4, 5, generator=generator)
    scores = torch.randn(queries, classes + 1, generator=generator)
    scores[:, -1] += void
    return logits, scores.softmax(-1), Frame((16, 20), (14, 19), (21, 11))


def straightforward_map(mask_logits, probabilities, frame, vocabulary, thresholds):
    """The rules of the paper on whole arrays, one query at a time."""
    score, column = probabilities.max(-1)
    kept = [q for q in range(len(score)) if column[q] < len(vocabulary) and score[q] > thresholds.object_mask]
    ids, segments, stuff = torch.zeros(frame.output, dtype=torch.int32), [], {}
    if not kept:
        return ids.numpy(), []
    masks = full_size(mask_logits, frame).sigmoid()[kept]
    owner = (masks * score[kept][:, None, None]).argmax(0)
    for place, query in enumerate(kept):
        category = vocabulary[int(column[query])]
        own, mask = owner == place, masks[place] >= 0.5
        if not own.any() or not mask.any() or not (own & mask).any() or own.sum() / mask.sum() < thresholds.overlap:
            continue
        if category.id in stuff:
            ids[own & mask] = stuff[category.id]
            continue
        segments.append((len(segments) + 1, category.id))
        ids[own & mask] = len(segments)
        if not category.is_thing:
            stuff[category.id] = len(segments)
    return ids.numpy(), segments


@given(
    seed=st.integers(0, 500),
    queries=st.integers(1, 9),
    overlap=st.sampled_from([0.0, 0.2, 0.8]),
    chunk=st.sampled_from([1, 700, 1 << 24]),
)
@settings(deadline=None, max_examples=60)
def test_the_map_equals_the_straightforward_one(seed, queries, overlap, chunk):
    vocabulary, thresholds = vocabulary_of(3), PanopticThresholds(0.3, overlap)
    case = random_case(seed, queries, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "CHUNK_ELEMENTS", chunk)
        result = panoptic_map(*case, vocabulary, thresholds)
    ids, segments = straightforward_map(*case, vocabulary, thresholds)
    assert np.array_equal(result.ids, ids)
    assert [(s.id, s.category_id) for s in result.segments] == segments
    for segment in result.segments:
        ys, xs = np.nonzero(ids == segment.id)
        assert segment.area == len(ys)
        assert segment.box == (xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1)
        assert 0 < segment.score <= 1


@pytest.mark.parametrize("chunk", [1, 1000, 1 << 24])
def test_semantic_scores_are_the_weighted_sum_of_masks(chunk, monkeypatch):
    monkeypatch.setattr(inference, "SEMANTIC_CHUNK_ELEMENTS", chunk)
    logits, probabilities, frame = random_case(0, 7, 4)
    expected = torch.einsum("qc,qhw->chw", probabilities[:, :-1], full_size(logits, frame).sigmoid())
    assert_close(semantic_scores(logits, probabilities, frame), expected)


@given(seed=st.integers(0, 300), limit=st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_instances_are_the_best_pairs_of_things(seed, limit):
    vocabulary = vocabulary_of(4)
    logits, probabilities, frame = random_case(seed, 6, 4)
    found = instances(logits, probabilities, frame, vocabulary, limit)
    pairs = sorted(((probabilities[q, c].item(), q, c) for q in range(6) for c in range(4)), reverse=True)[:limit]
    masks = full_size(logits, frame)
    expected = []
    for probability, query, column in pairs:
        if vocabulary[column].is_thing:
            inside = masks[query] > 0
            quality = (masks[query].sigmoid() * inside).sum() / (inside.sum() + 1e-6)
            expected.append((probability * quality.item(), column, int(inside.sum())))
    ours = [
        (s, c, a)
        for s, c, a in zip(
            found.scores.tolist(), found.columns.tolist(), found.masks.flatten(1).sum(1).tolist(), strict=True
        )
    ]
    assert len(ours) == len(expected)
    for (score, column, area), (expected_score, expected_column, expected_area) in zip(
        sorted(ours), sorted(expected), strict=True
    ):
        assert score == pytest.approx(expected_score, abs=1e-5)
        assert (column, area) == (expected_column, expected_area)


def test_all_void_gives_an_empty_map():
    logits, probabilities, frame = random_case(0, 5, 3, void=50)
    result = panoptic_map(logits, probabilities, frame, vocabulary_of(3), PanopticThresholds())
    assert result.segments == ()
    assert not result.ids.any()
    assert result.ids.shape == frame.output


def test_a_vocabulary_without_things_has_no_instances():
    logits, probabilities, frame = random_case(0, 5, 1)
    stuff = Vocabulary("v", (Category(0, ("sky",), is_thing=False),))
    assert len(instances(logits, probabilities, frame, stuff).scores) == 0
    assert instances(logits, probabilities, frame, stuff).masks.shape == (0, *frame.output)


def test_no_array_of_all_queries_at_full_size(monkeypatch):
    """The largest upsampled block is the chunk limit, not queries x pixels."""
    monkeypatch.setattr(inference, "CHUNK_ELEMENTS", 3 * 16 * 20)
    blocks = []
    original = inference.full_size
    monkeypatch.setattr(
        inference, "full_size", lambda masks, frame: blocks.append(len(masks)) or original(masks, frame)
    )
    logits, probabilities, frame = random_case(0, 40, 3)
    kept = int((probabilities.argmax(-1) < 3).sum())
    panoptic_map(logits, probabilities, frame, vocabulary_of(3), PanopticThresholds())
    assert max(blocks) <= 3
    assert sum(blocks) == kept < 40
