"""Nearly exact search: estimates of all asked rows from their codes, keys of those that may be near.

How far estimates are off is known from the keys that were looked at. Rows whose estimate is further than that from the
answer are left alone; a query of which too many rows remain in doubt is left to the exact scan.
"""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError
from retclip.shards.search.backend import Backend
from retclip.shards.search.faiss_products import Rows
from retclip.shards.search.index_files import IndexGone, ShardCodes, read_index
from retclip.shards.search.lists import Lists
from retclip.shards.search.pairs import Pairs
from retclip.shards.search.quick_keys import Keys
from retclip.shards.search.request import Request
from retclip.shards.search.row_scores import row_starts, score_rows
from retclip.shards.search.scope import Scope
from retclip.shards.search.selection import kth_largest
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform

ESTIMATES = (32, 128)  # for each hit; the second where the first are too few
_FIRST = 3  # keys for each hit that tell the error of estimates
_DEVIATIONS = 4.0  # that an estimate may be off: of a normal distribution, 3 in 100,000 are further above
_COLUMNS = 1 << 22  # estimates that are held at a time
_ROUNDING = 2.0**-12  # more than the float32 product of two keys is wrong by

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Estimates:
    """What codes say of the rows that may be nearest.

    Attributes:
        row: (M, c) rows of the snapshot, -1 where there are no more.
        score: (M, c) estimates, falling, -inf there.
        beyond: (M,) no asked row that is not here has a higher estimate; -inf when all are here.
        error: root mean square error of the estimates of a sample.
    """

    row: Rows
    score: Keys
    beyond: Keys
    error: float


class InvertedFiles:
    """Reads the lists of the asked classes, and no others. `scan` answers what codes leave in doubt."""

    name = "faiss inverted files"
    exact = False

    def __init__(self, snapshot: Snapshot, scan: Backend) -> None:
        self._snapshot, self._scan = snapshot, scan
        self._read: dict[str, list[Lists]] = {}

    def candidates(
        self, asked: npt.NDArray[np.float64], request: Request, scope: Scope, transform: KeyTransform
    ) -> Pairs:
        """See `backend.Backend`; codes say nothing of limits per class."""
        if request.cap is not None or not len(scope):
            return self._scan.candidates(asked, request, scope, transform)
        found, doubtful, keys = [Pairs.none()], np.arange(len(asked)), asked.astype(np.float32)
        for for_each_hit in ESTIMATES:
            many, left = min(for_each_hit * request.k, len(scope)), [doubtful[:0]]
            for some in np.array_split(doubtful, -(-len(doubtful) * many // _COLUMNS)) if len(doubtful) else ():
                guess = self._estimates(keys[some], many, request, scope, transform)
                pairs, settled = self._near(keys[some], guess, request.k, scope, transform)
                found.append(_renamed(pairs.take(settled[pairs.query]), some))
                left.append(some[~settled])
            doubtful = np.concatenate(left)
        if not len(doubtful):
            return Pairs.join(found)
        found.append(_renamed(self._scan.candidates(asked[doubtful], request, scope, transform), doubtful))
        return Pairs.join(found)

    def _estimates(self, keys: Keys, many: int, request: Request, scope: Scope, transform: KeyTransform) -> Estimates:
        lists = self._lists(scope, transform)
        rows, scores, limits = zip(*(part.search(keys, request.classes, many) for part in lists), strict=True)
        row, score, beyond = np.hstack(rows), np.hstack(scores), np.maximum.reduce(limits)
        if len(lists) > 1:
            order = np.argsort(-score, axis=1)
            row, score = np.take_along_axis(row, order, axis=1), np.take_along_axis(score, order, axis=1)
        return Estimates(row, score, beyond, max(float(part.coding.error[0]) for part in lists))

    def _near(self, keys: Keys, guess: Estimates, k: int, scope: Scope, transform: KeyTransform) -> tuple[Pairs, Mask]:
        """Pairs that may be in the answer, and for each query (M,) whether no others may."""
        score = np.full(guess.row.shape, -np.inf, np.float32)
        some = guess.row >= 0
        some[:, _FIRST * k :] = False
        self._score(keys, guess, some, transform, score)
        off = np.subtract(score, guess.score, out=np.zeros_like(score), where=some)[:, : _FIRST * k]
        error = np.sqrt(np.vecdot(off, off) / np.maximum(some.sum(axis=1), 1))
        reach = kth_largest(score[:, : _FIRST * k], k) - _DEVIATIONS * np.maximum(error, guess.error)
        self._score(keys, guess, (guess.row >= 0) & ~some & (guess.score >= reach[:, None]), transform, score)
        settled = (guess.beyond < reach) | np.isneginf(guess.beyond)
        floor = np.maximum(kth_largest(score, k) - 2 * _ROUNDING, np.finfo(np.float32).min)
        query, column = np.nonzero(score >= floor[:, None])
        return self._pairs(query, guess.row[query, column], score[query, column], scope), settled

    def _score(self, keys: Keys, guess: Estimates, some: Mask, transform: KeyTransform, score: Keys) -> None:
        """Write the scores of some rows."""
        query, column = np.nonzero(some)
        score[query, column] = score_rows(self._snapshot, transform, keys, query, guess.row[query, column])

    def _lists(self, scope: Scope, transform: KeyTransform) -> list[Lists]:
        """Codes of all shards that have an index, by the way they are coded; the shards of the scope must have one."""
        wanted, lists = set(scope.shard.tolist()), self._read.get(transform.kind, [])
        if wanted.difference(*(part.shards for part in lists)):
            lists = self._read[transform.kind] = [
                Lists(self._snapshot, next(iter(shards.values())).coding, shards)
                for shards in self._alike(wanted, transform)
            ]
        return lists

    def _alike(self, wanted: set[int], transform: KeyTransform) -> list[dict[int, ShardCodes]]:
        """What was read of the shards, by number, in groups that are coded alike."""
        alike: dict[tuple[bytes, int], dict[int, ShardCodes]] = {}
        for shard, part in enumerate(self._snapshot.shards):
            # What concerns other questions must not stop this one.
            with nullcontext() if shard in wanted else suppress(IndexGone, DatabaseError):
                found = read_index(part.reader, transform)
                # Where databases are layered the ids of their classes are moved.
                moved = next(iter(part.reader.ranges)) - int(found.coding.classes[found.numbers[0]])
                alike.setdefault((found.coding.digest(), moved), {})[shard] = found
        return list(alike.values())

    def _pairs(self, query: Rows, row: Rows, score: Keys, scope: Scope) -> Pairs:
        starts, position = row_starts(self._snapshot), np.empty(len(row), np.int64)
        shard = np.searchsorted(starts, row, side="right") - 1
        for number in np.unique(shard).tolist():
            here = shard == number
            position[here] = scope.positions_of(number, row[here] - starts[number])
        assert bool((position >= 0).all()), "an index answered with a row that was not asked"
        return Pairs(query, position, scope.classes_at(position), score)


def _renamed(pairs: Pairs, queries: Rows) -> Pairs:
    """Pairs whose query numbers are places in `queries`."""
    return replace(pairs, query=queries[pairs.query])
