"""Keys of a scope in a kernel's number format, kept from one picture to the next while they fit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import Kernel
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KeyTransform

BLOCK_ROWS = 65_536
_STEP_ROWS = 4_096  # few enough steps for busy processors, where every parallel call waits for the slowest thread


@dataclass(frozen=True)
class KeyBlock:
    """Keys of consecutive positions of a scope.

    Attributes:
        begin: position of the first.
        keys: (n, r) in the format and on the device of a kernel.
        loss: largest length of what rounding took from a key.
        ordinal: (n,) int64 place of each position's class among the classes of the block, not descending.
    """

    begin: int
    keys: torch.Tensor
    loss: float
    ordinal: npt.NDArray[np.int64]


def read_keys(scope: Scope, transform: KeyTransform, kernel: Kernel) -> Iterator[KeyBlock]:
    """Blocks of all keys of a scope, read from the disk in bounded memory."""
    for begin in range(0, len(scope), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(scope))
        steps = []
        for step in range(begin, end, _STEP_ROWS):
            positions = np.arange(step, min(step + _STEP_ROWS, end))
            # torch widens binary16 in vector registers, numpy number by number
            vectors = torch.from_numpy(scope.vectors_at(positions)).float().numpy()
            steps.append(kernel.rounded(transform.keys(vectors)))
        classes = scope.classes_at(np.arange(begin, end))
        ordinal = np.cumsum(np.diff(classes, prepend=classes[:1]) != 0)
        yield KeyBlock(
            begin,
            torch.cat([keys for keys, _ in steps]),
            max(loss for _, loss in steps),
            ordinal,
        )


class KeyCache:
    """The blocks of the vocabularies asked last, at most `limit` bytes of keys; safe to share between threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[object, ...], tuple[int, list[KeyBlock]]] = OrderedDict()
        self._lock = Lock()

    def blocks(self, name: tuple[object, ...], size: int, read: Callable[[], Iterable[KeyBlock]]) -> Iterable[KeyBlock]:
        """Blocks kept under a name, or read anew; blocks of `size` bytes above the limit are never kept."""
        if size > self._limit:
            return read()
        with self._lock:  # held while reading: two threads must not both fill the memory
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name][1]
            while self._kept and size + sum(kept for kept, _ in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)
            blocks = list(read())
            self._kept[name] = (size, blocks)
            return blocks
