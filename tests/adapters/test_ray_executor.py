"""What Ray actors ask for."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.absence import require_library

require_library("ray", "ray")
from retclip.adapters.ray_executor import share_of  # noqa: E402 - after the check that ray is there


@given(st.lists(st.integers(0, 64), min_size=1, max_size=8).filter(any), st.integers(1, 200), st.integers(1, 32))
def test_every_worker_finds_room(nodes: list[int], workers: int, wanted: int) -> None:
    share = share_of(nodes, workers, wanted)
    assert 0 < share <= wanted
    assert share < 1 or share == int(share), "Ray takes parts of one, and whole numbers above"
    places = sum(math.floor(units / share + 1e-9) for units in nodes)
    assert places >= workers
    if share < wanted and share >= 1:
        assert sum(units // (int(share) + 1) for units in nodes) < workers, "no more could be had"


def test_a_cluster_without_any_yet_is_asked_for_what_is_wanted() -> None:
    assert share_of([0, 0], 4, 8) == 8
    assert share_of([1], 4, 8) == 0.25
