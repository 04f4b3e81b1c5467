from __future__ import annotations

import numpy as np
import pytest

from retclip.evaluation.bootstrap import bootstrap, paired_difference
from retclip.evaluation.tally import ImageRow

THINGS = np.array([True, False])


def row(name: str, right: bool) -> ImageRow:
    counts = np.array([[0.8], [1.0], [0.0], [0.0]]) if right else np.array([[0.0], [0.0], [1.0], [1.0]])
    pixels = np.array([[0 if right else 1], [0], [10]])
    return ImageRow(name, 0.8 if right else 0.0, np.array([0]), counts, pixels, int(right), 1)


def test_equal_pictures_leave_no_doubt():
    found = bootstrap([row(str(n), True) for n in range(5)], THINGS, 50)
    assert (found.pq.value, found.pq.low, found.pq.high) == pytest.approx((0.8, 0.8, 0.8))
    assert (found.miou.value, found.label.value) == (1.0, 1.0)


def test_the_interval_of_a_share_is_about_binomial():
    rows = [row(str(n), n % 2 == 0) for n in range(100)]
    found = bootstrap(rows, THINGS, 2000)
    assert found.label.value == 0.5
    assert found.label.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.015)
    assert found.label.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.015)
    assert bootstrap(rows, THINGS, 200) == bootstrap(rows, THINGS, 200)


def test_a_difference_on_the_same_pictures_is_surer_than_two_intervals():
    first = [row(str(n), n % 2 == 0) for n in range(40)]
    second = [row(str(n), n % 2 == 0 or n == 1) for n in range(40)]
    found = paired_difference(first, second, THINGS, 500)
    assert found.label.value == pytest.approx(1 / 40)
    assert 0 <= found.label.low <= found.label.high < 0.11
    with pytest.raises(ValueError, match="same pictures"):
        paired_difference(first, second[::-1], THINGS, 10)
