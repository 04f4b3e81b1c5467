from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.evaluation.class_groups import harmonic_mean, split_means

FRACTION = st.floats(0, 1)


@given(first=FRACTION, second=FRACTION)
def test_harmonic_mean_lies_below_the_mean_and_above_the_lesser(first, second):
    value = harmonic_mean(first, second)
    assert min(first, second) - 1e-12 <= value or min(first, second) == 0
    assert value <= (first + second) / 2 + 1e-12
    assert value == pytest.approx(harmonic_mean(second, first))


def test_a_group_at_zero_gives_zero():
    assert harmonic_mean(0.0, 0.9) == 0.0
    assert harmonic_mean(0.0, 0.0) == 0.0


def test_only_counted_classes_enter_a_group():
    values = np.array([1.0, 0.5, 0.25, 0.9])
    result = split_means(values, np.array([True, True, True, False]), np.array([True, False, False, False]))
    assert (result.seen, result.unseen) == (1.0, 0.375)
    assert result.harmonic == pytest.approx(2 * 0.375 / 1.375)


def test_an_empty_group_has_no_figure():
    result = split_means(np.array([1.0]), np.array([True]), np.array([True]))
    assert result.seen == 1.0
    assert math.isnan(result.unseen)
    assert math.isnan(result.harmonic)
