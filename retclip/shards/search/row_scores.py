"""Scores of single rows, from keys that are made on the spot: those of another picture are mostly others."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from retclip.core.threads import Threads
from retclip.shards.search.faiss_products import Rows, products_of_pairs
from retclip.shards.search.quick_keys import Keys, quick_keys
from retclip.shards.shard_reader import ShardReader
from retclip.shards.snapshot import Snapshot
from retclip.shards.transforms import KeyTransform

_STEP_ROWS = 512  # few calls, and keys that a processor's cache can nearly hold


def fill_keys(reader: ShardReader, transform: KeyTransform, rows: Rows, out: Keys) -> None:
    """Write the keys of n rows of a shard into (n, r), with all cores."""
    vectors = np.asarray(reader.vectors)  # numpy.memmap is slow to index
    steps = [slice(begin, begin + _STEP_ROWS) for begin in range(0, len(rows), _STEP_ROWS)]
    with Threads(torch.get_num_threads()) as threads:
        list(threads.map(lambda step: quick_keys(vectors[rows[step]], transform, out[step]), steps))


class _Block(NamedTuple):
    """Distinct rows of one shard, and the pairs (numbers among all pairs) with each of them, one after another."""

    reader: ShardReader
    rows: Rows
    pairs: Rows
    place: Rows


def score_rows(snapshot: Snapshot, transform: KeyTransform, asked: Keys, query: Rows, row: Rows) -> Keys:
    """(n,) products of asked keys (M, r) number `query` (n,) and the keys of rows `row` (n,), with all cores.

    Rows count through all shards of the snapshot. A product is within a few units of 2^-16 of that of true keys.
    """
    score = np.empty(len(row), np.float32)

    def fill(blocks: list[_Block]) -> None:
        room = np.empty((_STEP_ROWS, asked.shape[1]), np.float32)  # once: fresh memory is slow to touch
        for block in blocks:
            keys = room[: len(block.rows)]
            quick_keys(np.asarray(block.reader.vectors)[block.rows], transform, keys)
            score[block.pairs] = products_of_pairs(asked, query[block.pairs], keys, block.place)

    cores, blocks = torch.get_num_threads(), _blocks(snapshot, row)
    with Threads(cores) as threads:
        list(threads.map(fill, [blocks[core::cores] for core in range(min(cores, len(blocks)))]))
    return score


def _blocks(snapshot: Snapshot, row: Rows) -> list[_Block]:
    rows, place = np.unique(row, return_inverse=True)
    order = np.argsort(place, kind="stable")
    first = np.searchsorted(place[order], np.arange(len(rows) + 1))
    starts = row_starts(snapshot)
    blocks = []
    for shard, span in enumerate(pairwise(np.searchsorted(rows, starts).tolist())):
        for begin in range(*span, _STEP_ROWS):
            end = min(begin + _STEP_ROWS, span[1])
            pairs = order[first[begin] : first[end]]
            local = rows[begin:end] - starts[shard]
            blocks.append(_Block(snapshot.shards[shard].reader, local, pairs, place[pairs] - begin))
    return blocks


def row_starts(snapshot: Snapshot) -> Rows:
    """(S + 1,) number of the first row of each shard when rows are counted through all shards, and of all rows."""
    return np.cumsum([0, *(shard.reader.rows for shard in snapshot.shards)])
