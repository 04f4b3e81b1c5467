"""Keys of a scope in a kernel's number format, kept from one picture to the next while they fit."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from threading import RLock
from weakref import WeakSet, finalize

import numpy as np
import numpy.typing as npt
import torch

from retclip.shards.search.kernels import Kernel
from retclip.shards.search.machine import cache_limit
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


class KeyBudget:
    """Bytes of keys that all caches of one memory may keep together; what was asked longest ago gives way.

    Safe to share between threads.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._kept: OrderedDict[tuple[object, ...], tuple[int, list[KeyBlock]]] = OrderedDict()
        self._owners = count()
        # Reentrant: a cache that is collected while this thread reads for another one gives its blocks back.
        self._lock = RLock()
        _budgets.add(self)

    def owner(self) -> int:
        """A number for one more cache."""
        return next(self._owners)

    def blocks(self, name: tuple[object, ...], size: int, read: Callable[[], Iterable[KeyBlock]]) -> Iterable[KeyBlock]:
        """Blocks kept under a name, or read anew; blocks of `size` bytes above the limit are never kept."""
        if size > self.limit:
            return read()
        with self._lock:  # held while reading: two threads must not both fill the memory
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name][1]
            while self._kept and size + self.used > self.limit:
                self._drop(next(iter(self._kept)))
            blocks = list(read())
            self._kept[name] = (size, blocks)
            self.used += size
            return blocks

    def forget(self, owner: int) -> None:
        """Give back what one cache kept."""
        with self._lock:
            for name in list(self._kept):
                if name[0] == owner:
                    self._drop(name)

    def _drop(self, name: tuple[object, ...]) -> None:
        size, _ = self._kept.pop(name, (0, []))  # a cache that is collected just now was quicker
        self.used -= size

    def unlock(self) -> None:
        """For a child of fork, which must not inherit a lock that a thread of its parent holds."""
        self._lock = RLock()


class KeyCache:
    """The blocks of the vocabularies that were asked of one backend, within a budget that others share."""

    def __init__(self, budget: KeyBudget) -> None:
        self._budget, self._owner = budget, budget.owner()
        finalize(self, budget.forget, self._owner)

    def blocks(self, name: tuple[object, ...], size: int, read: Callable[[], Iterable[KeyBlock]]) -> Iterable[KeyBlock]:
        """See `KeyBudget.blocks`."""
        return self._budget.blocks((self._owner, *name), size, read)


_budgets: WeakSet[KeyBudget] = WeakSet()


def _unlock() -> None:
    for budget in _budgets:
        budget.unlock()


os.register_at_fork(after_in_child=_unlock)


@cache
def shared_budget(device: str) -> KeyBudget:
    """The budget of every database that this process searches on a device."""
    return KeyBudget(cache_limit(device))
