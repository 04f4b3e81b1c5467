"""The order in which an endless run sees a finite data set."""

from __future__ import annotations

import numpy as np


class EndlessShuffle:
    """Passes over `count` items, each in an order of its own; place k is a function of (seed, k) alone.

    So a resumed run, or one with other worker processes, goes on where it was.

    Args:
        count: of items, at least 1.
        seed: of all orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed
        self._pass = -1
        self._order: list[int] = []

    def __getitem__(self, place: int) -> int:
        number, within = divmod(place, self._count)
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self._seed, 0, number]).permutation(self._count).tolist()
        return self._order[within]
