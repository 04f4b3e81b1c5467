"""Quality, intervals, claims and choices from counts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.playground.claims import CLAIMS, judge
from benchmarks.playground.intervals import over_seeds, paired_difference, quality_of
from benchmarks.playground.measure import Outcome
from benchmarks.playground.summary import trials_of
from benchmarks.playground.trials import (
    BASELINE,
    IN_DOMAIN,
    Choice,
)
from benchmarks.playground.world import GROUPS, IS_THING, VOCABULARY
from retclip.evaluation.panoptic_quality import MatchCounts, summarise
from tests.benchmarks.playground.conftest import random_counts

CLASSES = len(VOCABULARY)


@given(st.integers(0, 1000))
def test_quality_is_that_of_the_library(seed: int) -> None:
    table = random_counts(seed)
    total = table.sum(axis=0)
    result = summarise(MatchCounts(total[0], *(part.astype(np.int64) for part in total[1:])), IS_THING)
    for chosen in GROUPS.values():
        expected = result.mean(chosen).pq
        assert quality_of(table, chosen) == pytest.approx(0.0 if math.isnan(expected) else 100 * expected)


def test_students_interval_of_three_seeds() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert math.isnan(over_seeds([1.0]).low)


@given(st.integers(0, 100))
def test_a_difference_is_that_of_the_qualities_and_pairs_its_pictures(seed: int) -> None:
    first, second = random_counts(seed), random_counts(seed + 1000)
    found = paired_difference([first], [second], GROUPS["all"])
    assert found.mean == pytest.approx(quality_of(first, GROUPS["all"]) - quality_of(second, GROUPS["all"]))
    assert found.low <= found.high
    same = paired_difference([first, second], [first, second], GROUPS["all"])
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_a_claim_holds_only_where_its_whole_interval_does() -> None:
    right = np.zeros((5, 4, CLASSES))
    right[:, :2] = 1.0
    wrong = np.zeros((5, 4, CLASSES))
    wrong[:, 2:] = 1.0
    mixed = right.copy()
    mixed[::2] = wrong[::2]
    claim = CLAIMS[0]

    def holds(better: Any, worse: Any, margin: float = 0.0) -> str:
        counts = {claim.table: {claim.better: [better], claim.worse: [worse]}}
        return judge(replace(claim, margin=margin), counts).holds

    assert holds(right, wrong) == "yes"
    assert holds(wrong, right) == "no"
    assert holds(right, right) == "undecided"
    assert holds(right, mixed, 101.0) == "no"
    assert holds(right, mixed, 50.0) == "undecided"


def test_a_choice_never_looks_at_its_own_seed() -> None:
    good, bad = np.zeros((2, 4, CLASSES)), np.zeros((2, 4, CLASSES))
    good[:, :2], bad[:, 2:] = 1.0, 1.0
    first, second = BASELINE, IN_DOMAIN
    seeds = {first: [good, bad, bad], second: [bad, good, good]}
    outcomes = {trial: [Outcome({}, None, counts) for counts in found] for trial, found in seeds.items()}
    assert trials_of(Choice((first, second)), outcomes) == [second, first, first]
    assert trials_of(first, outcomes) == [first] * 3
    alone = {trial: found[1:2] for trial, found in outcomes.items()}
    assert trials_of(Choice((first, second)), alone) == [first]
