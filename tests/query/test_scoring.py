from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.presets import FusionSettings, Preset, RetrievalSettings
from retclip.query.scoring import AskedClasses, Hits, Observation, corrected_void, kept_classes, leave_out, weigh

CLASSES = 4
VOTING = Preset("test", retrieval=RetrievalSettings(rule="voting"))


def draw(seed: int) -> tuple[Observation, Hits, AskedClasses]:
    generator = torch.Generator().manual_seed(seed)
    distance = torch.rand(3, 5, generator=generator).sort(dim=1).values
    column = torch.randint(0, CLASSES - 1, (3, 5), generator=generator)
    clip = torch.rand(3, CLASSES, generator=generator).softmax(dim=1)
    # The last class has no exemplar.
    stored = torch.tensor([True, True, True, False])
    return Observation(torch.zeros(3, 2), clip), Hits(distance, column), AskedClasses(stored, ~stored)


@given(seed=st.integers(0, 1000))
def test_the_paper_settings_are_the_formula(seed):
    observation, hits, classes = draw(seed)
    experts, fused = weigh(observation, hits, classes, VOTING)
    expected = 0.3 * experts.retrieval + 0.7 * observation.clip
    torch.testing.assert_close(fused.scores, expected / expected.sum(dim=1, keepdim=True))


@given(seed=st.integers(0, 1000))
def test_a_class_without_exemplars_keeps_its_clip_score_under_gamma_by_class(seed):
    observation, hits, classes = draw(seed)
    fair = replace(VOTING, fusion=FusionSettings(gamma_by_class=True))
    _, fused = weigh(observation, hits, classes, fair)
    _, plain = weigh(observation, hits, classes, VOTING)
    assert bool((fused.scores[:, 3] > plain.scores[:, 3]).all())
    torch.testing.assert_close(fused.shares[:, 3, 1], torch.ones(3))


def test_a_falling_reliability_hands_far_queries_to_clip():
    observation, hits, classes = draw(0)
    far = Hits(hits.distance + torch.tensor([[0.0], [0.0], [1.0]]), hits.column)
    sharp = replace(VOTING, fusion=FusionSettings(reliability=(50.0, -100.0)))
    experts, fused = weigh(observation, far, classes, sharp)
    assert experts.trust[2].item() < 1e-6
    torch.testing.assert_close(fused.scores[2], observation.clip[2])


def test_a_query_without_hits_is_not_trusted():
    observation, hits, classes = draw(0)
    nothing = Hits(torch.full_like(hits.distance, torch.inf), torch.full_like(hits.column, -1))
    experts, fused = weigh(
        observation, nothing, classes, replace(VOTING, fusion=FusionSettings(reliability=(1.0, -1.0)))
    )
    assert experts.trust.flatten().tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(fused.scores, observation.clip)


def test_pruning_keeps_the_best_stored_classes_and_all_that_are_not_stored():
    retrieval = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.7, 0.2, 0.1, 0.0]])
    stored = torch.tensor([True, True, True, False])
    assert kept_classes(retrieval, stored, 1).tolist() == [True, False, False, True]
    assert kept_classes(retrieval, stored, 9).tolist() == [True, True, True, True]
    # A class that retrieval never mentions is not kept for filling up.
    assert kept_classes(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), stored, 3).tolist() == [True, False, False, True]


def test_pruned_classes_get_no_score_and_the_rest_still_sums_to_one():
    observation, hits, classes = draw(3)
    pruned = replace(VOTING, retrieval=replace(VOTING.retrieval, prune_classes=1))
    _, fused = weigh(observation, hits, classes, pruned)
    assert int((fused.scores.sum(dim=0) > 0).sum()) == 2
    torch.testing.assert_close(fused.scores.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize(("retrieval", "clip", "expected"), [(0.2, 0.5, 0.4), (0.9, 0.5, 0.08), (0.9, None, 0.08)])
def test_void_is_lowered_by_the_surer_expert(retrieval, clip, expected):
    tables = [torch.tensor([[value, 0.0]]) if value is not None else None for value in (retrieval, clip)]
    assert corrected_void(torch.tensor([0.8]), *tables).item() == pytest.approx(expected)


def test_void_is_corrected_only_when_asked():
    observation, hits, classes = draw(1)
    doubted = replace(observation, void=torch.full((3,), 0.5))
    plain, _ = weigh(doubted, hits, classes, VOTING)
    corrected, _ = weigh(doubted, hits, classes, replace(VOTING, fusion=FusionSettings(void="corrected")))
    assert plain.void.tolist() == [0.5] * 3
    assert bool((corrected.void < 0.5).all())


@given(seed=st.integers(0, 1000))
def test_left_out_hits_leave_no_gap(seed):
    _, hits, _ = draw(seed)
    banned = torch.rand(3, 5, generator=torch.Generator().manual_seed(seed)) < 0.5
    left = leave_out(hits, banned)
    for row in range(3):
        kept = hits.distance[row][~banned[row]].tolist()
        assert left.distance[row].tolist()[: len(kept)] == kept
        assert left.column[row].tolist() == hits.column[row][~banned[row]].tolist() + [-1] * (5 - len(kept))
