"""What the planner chooses between."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from retclip.shards.search.pairs import Pairs
from retclip.shards.search.request import Request
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KeyTransform


class Backend(Protocol):
    """Finds rows that may be the nearest; what it finds is measured again in float64.

    Attributes:
        name: shown in plans.
        exact: whether every row of the true answer is always among the candidates.
    """

    name: str
    exact: bool

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """Pairs that may be among the answer.

        Args:
            asked: (M, r) keys of the queries, of unit length or zero.
            request: how many hits.
            scope: the rows to answer with.
            transform: what makes keys of stored vectors.

        Returns:
            Pairs of distinct (query, position).
        """
        ...
