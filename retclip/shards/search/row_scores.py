"""Scores of single rows, from keys that are made on the spot: those of another picture are mostly others."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from retclip.core.threads import Threads
from retclip.shards.search.faiss_products import Rows, products_of_pairs
from retclip.shards.search.quick_keys import Keys, quick_keys
from retclip.shards.shard_reader import ShardReader
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform

_STEP_ROWS = 512  # few calls, and keys that a processor's cache can nearly hold
_ROOM_ROWS = 4_096

Part = tuple[ShardReader, Rows, slice]


def fill_keys(reader: ShardReader, transform: KeyTransform, rows: Rows, out: Keys) -> None:
    """Write the keys of n rows of a shard into (n, r), with all cores."""
    _fill([(reader, rows, slice(0, len(rows)))], transform, out)


def _fill(parts: list[Part], transform: KeyTransform, out: Keys) -> None:
    """Write the keys of rows of shards into slices of `out`."""

    def fill(part: Part) -> None:
        reader, rows, place = part
        # numpy.memmap is slow to index
        quick_keys(np.asarray(reader.vectors)[rows], transform, out[place])

    steps = [
        (reader, step, slice(place.start + begin, place.start + begin + len(step)))
        for reader, rows, place in parts
        for begin in range(0, len(rows), _STEP_ROWS)
        for step in [rows[begin : begin + _STEP_ROWS]]
    ]
    with Threads(torch.get_num_threads()) as threads:
        list(threads.map(fill, steps))


def score_rows(snapshot: Snapshot, transform: KeyTransform, asked: Keys, query: Rows, row: Rows) -> Keys:
    """(n,) products of asked keys (M, r) number `query` (n,) and the keys of rows `row` (n,), with all cores.

    Rows count through all shards of the snapshot. A product is within a few units of 2^-16 of that of true keys.
    """
    rows, place = np.unique(row, return_inverse=True)
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(rows) + 1))
    score = np.empty(len(row), np.float32)
    room = np.empty((min(len(rows), _ROOM_ROWS), asked.shape[1]), np.float32)  # once: fresh memory is slow to touch
    for begin in range(0, len(rows), _ROOM_ROWS):
        some = rows[begin : begin + _ROOM_ROWS]
        _fill(_parts(snapshot, some), transform, room)
        pairs = order[first[begin] : first[begin + len(some)]]
        score[pairs] = products_of_pairs(asked, query[pairs], room, place[pairs] - begin)
    return score


def _parts(snapshot: Snapshot, rows: Rows) -> list[Part]:
    """Ascending rows of a snapshot by the shards that hold them."""
    starts = row_starts(snapshot)
    cuts = pairwise(np.searchsorted(rows, starts).tolist())
    return [
        (shard.reader, rows[begin:end] - start, slice(begin, end))
        for shard, start, (begin, end) in zip(snapshot.shards, starts[:-1], cuts, strict=True)
    ]


def row_starts(snapshot: Snapshot) -> Rows:
    """(S + 1,) number of the first row of each shard when rows are counted through all shards, and of all rows."""
    return np.cumsum([0, *(shard.reader.rows for shard in snapshot.shards)])
