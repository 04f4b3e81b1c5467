"""The codes of several shards in memory, one list for each class, as FAISS searches them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retclip.shards.search.coding import Coding
from retclip.shards.search.faiss_products import Rows, products_with
from retclip.shards.search.index_files import ShardCodes
from retclip.shards.search.quick_keys import Keys
from retclip.shards.search.row_scores import row_starts
from retclip.shards.snapshot import Snapshot

_RESERVOIR = 13  # FAISS's way to search 4-bit codes for more hits than a heap is quick for


class Lists:
    """Live rows of shards that are coded alike. Ids count the rows of a snapshot through all its shards.

    Attributes:
        coding: how they are coded.
        shards: whose rows they are.
        classes: (L,) effective class of each list, -1 for those without rows.
    """

    def __init__(self, snapshot: Snapshot, coding: Coding, shards: Mapping[int, ShardCodes]) -> None:
        """`shards`: what the index of each shard holds, by the shard's number in the snapshot."""
        import faiss

        self.coding, self.shards = coding, set(shards)
        self.classes = np.full(len(coding.classes), -1)
        self._rows = np.zeros(len(coding.classes), np.int64)
        plain = coding.lists()
        starts = row_starts(snapshot)
        for shard, found in shards.items():
            live, ranges = snapshot.live_mask(shard), snapshot.shards[shard].reader.ranges
            for number, (class_id, (begin, end)) in zip(found.numbers.tolist(), ranges.items(), strict=True):
                rows = begin + np.flatnonzero(live[begin:end])
                arrays = (starts[shard] + rows, found.codes[rows])
                plain.invlists.add_entries(number, len(rows), *map(faiss.swig_ptr, arrays))
                self.classes[number] = snapshot.classes.effective(class_id)
                self._rows[number] += len(rows)
        plain.ntotal = int(self._rows.sum())
        self._faiss: Any = faiss.IndexIVFPQFastScan(plain)
        empty: Any = faiss.ArrayInvertedLists(plain.nlist, plain.code_size)
        plain.replace_invlists(empty, True)  # what was packed is not needed twice, and FAISS keeps `plain`
        empty.this.disown()
        self._faiss.implem = _RESERVOIR

    def search(self, asked: Keys, classes: Sequence[int], many: int) -> tuple[Rows, Keys, Keys]:
        """Best estimates of the products of asked keys (M, r) with the rows of some effective classes.

        Returns:
            (M, many) ids and estimates, falling; where there are no more, -1 and -inf; and (M,) the highest estimate
            that a row can have which is not here: -inf when all are here, +inf when nothing can be said.
        """
        import faiss

        count, lists = len(asked), np.flatnonzero(np.isin(self.classes, classes))
        ids, score = np.full((count, many), -1), np.full((count, many), -np.inf, np.float32)
        if not len(lists):
            return ids, score, score[:, -1]
        turned = products_with(asked, self.coding.directions, np.arange(len(self.coding.directions)))
        whole = self._with_room(products_with(asked, self.coding.centres, lists), turned)
        every = np.tile(np.append(lists, len(self.classes) + np.arange(2)), (count, 1))
        library: Any = faiss
        pointer = library.swig_ptr
        # The Python wrapper takes no parameters.
        self._faiss.search_preassigned_c(
            count, pointer(turned), many, pointer(every), pointer(whole), pointer(score), pointer(ids), False,
            library.IVFSearchParameters(nprobe=every.shape[1]),
        )  # fmt: skip
        score[ids < 0] = -np.inf
        # Of a query whose products with all levels are the same, a zero one for instance, FAISS returns nothing.
        lost = (ids >= 0).sum(axis=1) < min(many, self._rows[lists].sum())
        return ids, score, np.where(lost, np.float32(np.inf), score[:, -1])

    def _with_room(self, whole: Keys, turned: Keys) -> Keys:
        """(M, n + 2) products with centres (M, n), and one below and one above them for the two lists without rows.

        FAISS counts in units of which 65,535 span all sums, and rounds every part: without room the highest sums would
        start again at 0, and the lowest count as none.
        """
        low, high = whole.min(axis=1), whole.max(axis=1)
        span = high - low + np.abs(turned) @ np.ptp(self.coding.levels, axis=1)
        room = np.maximum(span * 2.0**-8, 1e-6)
        return np.column_stack([whole, low - room, high + room]).astype(np.float32)
