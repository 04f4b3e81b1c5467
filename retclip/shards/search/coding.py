"""Four bits for each of a few numbers that say how a key differs from the mean key of its class.

The numbers are components in the directions that matter most for products, rounded to one of 16 levels. FAISS adds up
such codes 32 rows at a time inside the processor's registers, several times as fast as products of whole keys. The sum
estimates a product; `ivf` measures what could be near.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.shards.search.faiss_products import Rows
from retclip.shards.search.quick_keys import Keys
from retclip.shards.search.row_scores import fill_keys
from retclip.shards.shard_reader import ShardReader
from retclip.shards.transforms import KeyTransform

_COMPONENTS = 128
# Levels of least squared error for a normal variable (Max, Quantizing for minimum distortion, 1960, table I, N = 16).
_HALF = (0.1284, 0.3881, 0.6568, 0.9424, 1.2562, 1.6181, 2.0691, 2.7326)
_LEVELS = np.array([*(-level for level in reversed(_HALF)), *_HALF], np.float32)
_SAMPLE_ROWS = 1 << 16
_ERROR_ROWS = 512
_BLOCK_ROWS = 1 << 14

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Coding:
    """How the shards of one database are coded.

    Attributes:
        classes: (L,) int32 stored classes, ascending; centres: (L, r) float32 mean key of each.
        directions: (c, r) float32, orthogonal and of unit length.
        levels: (c, 16) float32 of each component.
        error: (1,) float64 root mean square of what an estimate of a product is wrong by.
    """

    classes: npt.NDArray[np.int32]
    centres: Keys
    directions: Keys
    levels: Keys
    error: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, readers: Sequence[ShardReader], transform: KeyTransform) -> Coding:
        """The coding that suits some shards, from rows all over them."""
        step = -(-sum(reader.rows for reader in readers) // _SAMPLE_ROWS)
        keys, stored = zip(*(_sample(reader, transform, step) for reader in readers), strict=True)
        sample = np.concatenate(keys)
        classes, number = np.unique(np.concatenate(stored), return_inverse=True)
        centres = _means(sample, number)
        differences = sample - centres[number]
        directions = _directions(sample, differences)
        turned = differences @ directions.T
        levels: Keys = turned.std(axis=0)[:, None] * _LEVELS
        some = slice(None, None, max(len(sample) // _ERROR_ROWS, 1))
        rounded = np.take_along_axis(levels, np.abs(turned[some, :, None] - levels).argmin(axis=2).T, axis=1).T
        estimate = sample[some] @ centres[number[some]].T + sample[some] @ directions.T @ rounded.T
        error = np.sqrt(np.mean((estimate - sample[some] @ sample[some].T) ** 2, dtype=np.float64, keepdims=True))
        return cls(classes.astype(np.int32), centres, directions, levels, error.ravel())

    def encode(self, reader: ShardReader, transform: KeyTransform) -> Codes:
        """(rows, ceil(c / 2)) codes of all rows of a shard, dead ones too, as `lists` reads them."""
        lists = self.lists()  # owns the quantizer
        quantizer = lists.pq
        centres = self.centres @ self.directions.T
        codes = np.empty((reader.rows, quantizer.code_size), np.uint8)
        for begin in range(0, reader.rows, _BLOCK_ROWS):
            rows = np.arange(begin, min(begin + _BLOCK_ROWS, reader.rows))
            keys = np.empty((len(rows), self.directions.shape[1]), np.float32)
            fill_keys(reader, transform, rows, keys)
            own = np.searchsorted(self.classes, reader.row_classes()[rows])
            codes[rows] = quantizer.compute_codes(keys @ self.directions.T - centres[own])
        return codes

    def digest(self) -> bytes:
        """Equal for codings whose codes can stand in one list."""
        parts = (self.classes, self.centres, self.directions, self.levels, self.error)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()

    def lists(self) -> Any:
        """FAISS's inverted file for codes, a list for each class and two more, all empty. Who searches names lists."""
        import faiss

        count, many = len(self.levels), len(self.classes) + 2
        unused = faiss.IndexFlatIP(count)
        unused.add(np.zeros((many, count), np.float32))
        lists = faiss.IndexIVFPQ(unused, count, many, count, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(self.levels.ravel(), lists.pq.centroids)
        lists.is_trained = True
        return lists


def _sample(reader: ShardReader, transform: KeyTransform, step: int) -> tuple[Keys, npt.NDArray[np.int32]]:
    """(n, r) keys of every `step`-th row and of the first of each class, and the stored classes (n,)."""
    begins = [begin for begin, _ in reader.ranges.values()]
    rows = np.union1d(np.arange(0, reader.rows, step), np.array(begins, np.int64))
    keys = np.empty((len(rows), transform.width(reader.dim)), np.float32)
    fill_keys(reader, transform, rows, keys)
    return keys, reader.row_classes()[rows]


def _means(keys: Keys, number: Rows) -> Keys:
    """(L, r) mean of the keys (n, r) of each number (n,) from 0 on; each has some."""
    order, counts = np.argsort(number, kind="stable"), np.bincount(number)
    sums = np.add.reduceat(keys[order], np.cumsum(counts) - counts, axis=0)
    return (sums / counts[:, None]).astype(np.float32)


def _directions(keys: Keys, differences: Keys) -> Keys:
    """(c, r) directions in which products of keys (n, r) with differences (n, r) vary most."""
    lengths, axes = np.linalg.eigh((keys.T @ keys).astype(np.float64))
    root = (axes * np.sqrt(np.maximum(lengths, 0.0))) @ axes.T
    _, found = np.linalg.eigh(root @ (differences.T @ differences) @ root)
    return np.ascontiguousarray(found[:, ::-1].T[:_COMPONENTS], np.float32)
