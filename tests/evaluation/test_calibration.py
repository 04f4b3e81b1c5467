from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.evaluation.calibration import BINS, Calibration


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_equals_the_definition(pairs):
    calibration = Calibration()
    scores, right = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    half = len(pairs) // 2
    calibration.add(scores[:half], right[:half])
    calibration.add(scores[half:], right[half:])
    expected = 0.0
    for number in range(BINS):
        inside = [p for p in pairs if min(int(p[0] * BINS), BINS - 1) == number]
        if inside:
            confidence = sum(p[0] for p in inside) / len(inside)
            accuracy = sum(p[1] for p in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(confidence - accuracy)
    assert calibration.error() == pytest.approx(expected, abs=1e-9)
    assert sum(part.count for part in calibration.bins()) == len(pairs)


def test_certain_and_always_right_is_calibrated():
    calibration = Calibration()
    calibration.add(np.ones(5), np.ones(5, bool))
    assert calibration.error() == 0.0
    assert [(part.count, part.score, part.accuracy) for part in calibration.bins()] == [(5, 1.0, 1.0)]


def test_nothing_has_no_error():
    assert math.isnan(Calibration().error())


def test_scores_outside_the_range_are_refused():
    with pytest.raises(ValueError, match="score"):
        Calibration().add(np.array([1.5]), np.array([True]))
