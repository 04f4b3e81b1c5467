"""Fusion: the official numbers, its invariants and its limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retclip.presets import FusionSettings
from retclip.query.ensemble import ExpertScores, combine
from tests.goldens import Goldens

MODES = st.sampled_from(["arithmetic", "geometric"])
WEIGHTS = st.sampled_from([0.0, 0.3, 0.4, 0.7, 1.0])


@pytest.fixture(scope="session")
def formula(goldens: Goldens) -> dict[str, Any]:
    return goldens.json("retclip_formula.json")


@pytest.mark.golden
def test_combine_gives_the_reference_numbers(formula: dict[str, Any]) -> None:
    cases = {name: case for name, case in formula.items() if "s_iv" in case}
    assert cases
    for name, case in cases.items():
        tables = {key: torch.tensor([case[key]], dtype=torch.float64) for key in ("s_ret", "s_clip", "s_iv", "s")}
        experts = ExpertScores(tables["s_ret"], tables["s_clip"], tables["s_iv"])
        settings = FusionSettings("arithmetic", case["alpha"], case["beta"], case["gamma"])
        fused = combine(experts, torch.tensor(case["in_train"], dtype=torch.bool), settings)
        expected = tables["s"] / tables["s"].sum()
        torch.testing.assert_close(fused.scores, expected, atol=1e-7, rtol=0, msg=name)


@st.composite
def experts(draw: st.DrawFn, *, hits: bool = False) -> ExpertScores:
    """Tables of one to four masks and one to five classes; any expert may be absent, any number may be 0 or 1."""
    rows, classes = draw(st.integers(1, 4)), draw(st.integers(1, 5))

    def table() -> Tensor:
        value = st.sampled_from([0.0, 1e-30, 1e-6, 0.2, 0.5, 1.0])
        flat = draw(st.lists(value, min_size=rows * classes, max_size=rows * classes))
        return torch.tensor(flat).view(rows, classes)

    def distribution() -> Tensor:
        values = table() + torch.eye(rows, classes) + (torch.arange(rows)[:, None] >= classes) * 1.0
        return values / values.sum(dim=1, keepdim=True)

    present = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()).filter(any))
    retrieval = table() if present[0] or hits else None
    if retrieval is not None and hits:
        retrieval[:, 0] = 1.0
    void = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=rows, max_size=rows)))
    return ExpertScores(
        retrieval,
        distribution() if present[1] else None,
        distribution() if present[2] else None,
        void if draw(st.booleans()) else None,
    )


def seen_of(tables: ExpertScores, pattern: int) -> Tensor:
    table = next(t for t in (tables.retrieval, tables.clip, tables.in_vocab) if t is not None)
    return torch.tensor([bool(pattern >> c & 1) for c in range(table.shape[1])])


@given(experts(), st.integers(0, 31), MODES, WEIGHTS, WEIGHTS, WEIGHTS)
def test_rows_sum_to_one_less_void_or_to_nothing_without_evidence(
    tables: ExpertScores, pattern: int, mode: Any, alpha: float, beta: float, gamma: float
) -> None:
    fused = combine(tables, seen_of(tables, pattern), FusionSettings(mode, alpha, beta, gamma))
    assert torch.isfinite(fused.scores).all()
    assert (fused.scores >= 0).all()
    expected = torch.ones(len(fused.scores)) if tables.void is None else 1 - tables.void
    blind = tables.clip is None and tables.in_vocab is None
    if blind and tables.retrieval is not None:
        expected = torch.where((tables.retrieval > 0).any(dim=1), expected, 0.0)
    torch.testing.assert_close(fused.scores.sum(dim=1), expected, atol=1e-5, rtol=0)


@given(experts(), st.integers(0, 31), MODES, WEIGHTS, WEIGHTS, WEIGHTS)
def test_shares_are_parts_of_one_and_absent_experts_have_none(
    tables: ExpertScores, pattern: int, mode: Any, alpha: float, beta: float, gamma: float
) -> None:
    shares = combine(tables, seen_of(tables, pattern), FusionSettings(mode, alpha, beta, gamma)).shares
    assert torch.isfinite(shares).all()
    assert (shares >= 0).all()
    assert (shares.sum(dim=-1) <= 1 + 1e-5).all()
    for index, table in enumerate((tables.retrieval, tables.clip, tables.in_vocab)):
        if table is None:
            assert (shares[..., index] == 0).all()


@given(experts(hits=True), MODES)
def test_gamma_chooses_between_retrieval_and_text(tables: ExpertScores, mode: Any) -> None:
    if tables.clip is None:
        return
    both = replace(tables, in_vocab=None, void=None)
    seen = seen_of(both, 0)
    only_text = combine(both, seen, FusionSettings(mode, gamma=0.0)).scores
    torch.testing.assert_close(only_text, tables.clip, atol=1e-5, rtol=0)
    only_retrieval = combine(both, seen, FusionSettings(mode, gamma=1.0)).scores
    assert tables.retrieval is not None
    expected = tables.retrieval / tables.retrieval.sum(dim=1, keepdim=True)
    torch.testing.assert_close(only_retrieval, expected, atol=1e-5, rtol=0)


def test_a_row_that_retrieved_nothing_listens_to_the_text_alone() -> None:
    clip = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    retrieval = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    scores = combine(ExpertScores(retrieval, clip), torch.zeros(2, dtype=torch.bool), FusionSettings(gamma=0.7)).scores
    torch.testing.assert_close(scores[0], clip[0])
    assert scores[1].argmax() == 1


@pytest.mark.parametrize("mode", ["arithmetic", "geometric"])
@pytest.mark.parametrize("retrieval", [None, torch.zeros(1, 3)])
def test_without_evidence_from_outside_the_trained_head_decides_alone(mode: Any, retrieval: Tensor | None) -> None:
    in_vocab = torch.tensor([[0.2, 0.3, 0.5]])
    settings = FusionSettings(mode, alpha=1.0, beta=0.7)
    fused = combine(ExpertScores(retrieval, None, in_vocab), torch.tensor([True, False, False]), settings)
    torch.testing.assert_close(fused.scores, in_vocab)
    torch.testing.assert_close(fused.shares, torch.tensor([0.0, 0.0, 1.0]).expand(1, 3, 3))


@given(experts(), st.integers(0, 31))
def test_geometric_is_the_literal_product_where_all_experts_speak(tables: ExpertScores, pattern: int) -> None:
    if tables.in_vocab is None or tables.clip is None:
        return
    positive = ExpertScores(None, tables.clip.clamp_min(1e-3), tables.in_vocab.clamp_min(1e-3))
    seen = seen_of(tables, pattern)
    exponent = torch.where(seen, 0.4, 0.8)
    assert positive.clip is not None
    assert positive.in_vocab is not None
    product = positive.in_vocab ** (1 - exponent) * positive.clip**exponent
    expected = product / product.sum(dim=1, keepdim=True)
    scores = combine(positive, seen, FusionSettings("geometric", 0.4, 0.8)).scores
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_three_experts_share_a_score_as_the_equations_say() -> None:
    experts_ = ExpertScores(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.2, 0.8]]))
    fused = combine(experts_, torch.tensor([True, False]), FusionSettings("arithmetic", 0.4, 0.7, 0.3))
    first = torch.tensor([0.4 * 0.3 * 1.0, 0.4 * 0.7 * 0.5, 0.6 * 0.2])
    second = torch.tensor([0.0, 0.7 * 0.7 * 0.5, 0.3 * 0.8])
    total = first.sum() + second.sum()
    torch.testing.assert_close(fused.scores[0], torch.stack([first.sum(), second.sum()]) / total)
    torch.testing.assert_close(fused.shares[0], torch.stack([first / first.sum(), second / second.sum()]))


def test_experts_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        ExpertScores(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least one"):
        ExpertScores(void=torch.zeros(2))
