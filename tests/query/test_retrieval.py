"""Retrieval scores against literal definitions, one query and one hit at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from retclip.presets import RetrievalSettings
from retclip.query.retrieval import retrieval_scores
from tests.goldens import Goldens


@pytest.mark.golden
def test_the_reference_example(goldens: Goldens) -> None:
    case = goldens.json("retclip_formula.json")["retrieval_score"]
    distance, column = torch.tensor([case["distances"]]), torch.tensor([case["labels"]])
    scores = retrieval_scores(distance, column, case["num_classes"], RetrievalSettings())
    torch.testing.assert_close(scores, torch.tensor([case["per_class_max_zero_if_absent"]]), atol=1e-6, rtol=0)
    apart = torch.arange(distance.shape[1])[None]
    each = retrieval_scores(distance, apart, distance.shape[1], RetrievalSettings())
    torch.testing.assert_close(each[0], torch.tensor(case["scores_one_minus_minmax_over_this_list"]), atol=1e-6, rtol=0)


@st.composite
def hits(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Ascending distances (N, K), columns with missing places at the end of a row, number of classes."""
    rows, k, classes = draw(st.integers(0, 4)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    distance = torch.full((rows, k), torch.inf)
    column = torch.full((rows, k), -1)
    for row in range(rows):
        found = draw(st.integers(0, k))
        values = sorted(
            draw(st.lists(st.sampled_from([0.0, 0.1, 0.4, 0.41, 1.0, 2.0]), min_size=found, max_size=found))
        )
        distance[row, :found] = torch.tensor(values)
        column[row, :found] = torch.tensor(draw(st.lists(st.integers(0, classes - 1), min_size=found, max_size=found)))
    return distance, column, classes


def literal_minmax(distance: Tensor, column: Tensor, classes: int, settings: RetrievalSettings) -> Tensor:
    """RetCLIP section 3.2 in loops."""
    table = [
        [(float(d), int(c)) for d, c in zip(ds, cs, strict=True) if c >= 0]
        for ds, cs in zip(distance, column, strict=True)
    ]
    scores = torch.zeros(len(table), classes)
    for row, found in enumerate(table):
        if settings.minmax == "image":
            values = [d for other in table for d, _ in other]
        elif settings.minmax == "classes":
            values = [min(d for d, c in found if c == wanted) for wanted in {c for _, c in found}]
        else:
            values = [d for d, _ in found]
        for wanted in {c for _, c in found}:
            low, high = min(values), max(values)
            mine = [d for d, c in found if c == wanted]
            close = [1.0 if high - low <= 1e-6 else max(0.0, 1 - (d - low) / (high - low)) for d in mine]
            scores[row, wanted] = {"max": max(close), "sum": sum(close), "mean": sum(close) / len(close)}[
                settings.aggregate
            ]
    return scores


@pytest.mark.parametrize(("over", "aggregate"), list(product(["query", "image", "classes"], ["max", "mean", "sum"])))
@given(case=hits())
def test_minmax_is_its_definition(over: str, aggregate: str, case: tuple[Tensor, Tensor, int]) -> None:
    settings = replace(RetrievalSettings(), minmax=over, aggregate=aggregate)  # type: ignore[arg-type]
    scores = retrieval_scores(*case, settings)
    torch.testing.assert_close(scores, literal_minmax(*case, settings), atol=1e-5, rtol=0)


@given(case=hits(), temperature=st.sampled_from([1e-4, 0.05, 1.0]))
def test_voting_is_its_definition(case: tuple[Tensor, Tensor, int], temperature: float) -> None:
    distance, column, classes = case
    scores = retrieval_scores(*case, RetrievalSettings(rule="voting", temperature=temperature))
    expected = torch.zeros(len(distance), classes)
    for row in range(len(distance)):
        found = [(float(d), int(c)) for d, c in zip(distance[row], column[row], strict=True) if c >= 0]
        weights = [math.exp(-(d - found[0][0]) / temperature) for d, _ in found]
        for weight, (_, c) in zip(weights, found, strict=True):
            expected[row, c] += weight / sum(weights)
    torch.testing.assert_close(scores, expected, atol=1e-4, rtol=0)


@given(case=hits())
def test_the_class_of_the_nearest_hit_wins_whatever_the_rest(case: tuple[Tensor, Tensor, int]) -> None:
    column = case[1]
    scores = retrieval_scores(*case, RetrievalSettings())
    for row in range(len(scores)):
        if column[row, 0] >= 0:
            assert scores[row, column[row, 0]] == 1.0
        else:
            assert (scores[row] == 0).all()


def test_one_hit_and_equal_hits_score_one() -> None:
    distance = torch.tensor([[0.7, torch.inf, torch.inf], [0.3, 0.3, 0.3]])
    column = torch.tensor([[2, -1, -1], [0, 1, 1]])
    scores = retrieval_scores(distance, column, 3, RetrievalSettings())
    assert scores.tolist() == [[0, 0, 1], [1, 1, 0]]


def test_mismatched_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="column"):
        retrieval_scores(torch.zeros(2, 3), torch.zeros(3, 2, dtype=torch.long), 2, RetrievalSettings())
