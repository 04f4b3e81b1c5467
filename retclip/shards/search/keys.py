"""Keys of a scope in a kernel's number format, kept from one picture to the next while they fit."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from threading import Lock, RLock
from weakref import WeakSet, finalize

import numpy as np
import numpy.typing as npt
import torch

from retclip.core.threads import Threads
from retclip.shards.search.kernels import Kernel
from retclip.shards.search.machine import cache_limit
from retclip.shards.search.quick_keys import quick_keys
from retclip.shards.search.scope import Scope
from retclip.shards.transforms import KeyTransform

Name = tuple[object, ...]
Rows = npt.NDArray[np.int64]

BLOCK_ROWS = 65_536
_STEP_ROWS = 512  # float32 numbers that a processor's cache can hold


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


def read_keys(scope: Scope, transform: KeyTransform, kernel: Kernel, passing: bool) -> Iterator[KeyBlock]:
    """Blocks of all keys of a scope, read from the disk.

    `passing`: a block is not looked at any more when the next is asked for, which then takes its memory: to touch fresh
    memory takes longer than to make keys.
    """
    width = transform.width(scope.snapshot.dim)
    room = torch.empty(0)
    with Threads(torch.get_num_threads()) as threads:
        for begin in range(0, len(scope), BLOCK_ROWS):
            positions = np.arange(begin, min(begin + BLOCK_ROWS, len(scope)))
            if not passing or begin == 0:
                room = torch.empty((len(positions), width), dtype=kernel.dtype, device=kernel.device)
            keys = room[: len(positions)]
            steps = [slice(start, start + _STEP_ROWS) for start in range(0, len(positions), _STEP_ROWS)]
            fill = partial(_fill, scope, transform, kernel)
            loss = max(threads.map(fill, [positions[step] for step in steps], [keys[step] for step in steps]))
            classes = scope.classes_at(positions)
            ordinal = np.cumsum(np.diff(classes, prepend=classes[:1]) != 0)
            yield KeyBlock(begin, keys, loss, ordinal)


def _fill(scope: Scope, transform: KeyTransform, kernel: Kernel, positions: Rows, keys: torch.Tensor) -> float:
    """Write the keys of some positions; returns the largest length of what is missing."""
    vectors = scope.vectors_at(positions)
    if kernel.is_numpy:
        return quick_keys(vectors, transform, keys.numpy())
    quick = np.empty(keys.shape, np.float32)
    return quick_keys(vectors, transform, quick) + kernel.hold(quick, keys)


class KeyBudget:
    """Bytes of keys that all caches of one memory may keep together; what was asked longest ago gives way.

    Safe to share between threads. What is being read holds its place: two threads must not both fill the memory.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[Name, tuple[int, list[KeyBlock]]] = OrderedDict()
        self._reading: dict[Name, int] = {}
        self._owners = count()
        # Reentrant: a cache may be collected, and give its blocks back, while this thread holds the lock.
        self._lock = RLock()
        _shared.add(self)

    @property
    def used(self) -> int:
        """Bytes kept and being read."""
        with self._lock:
            kept = list(self._kept.values())  # a copy: see above
            return sum(size for size, _ in kept) + sum(self._reading.values())

    def owner(self) -> int:
        """A number for one more cache, with which its names begin."""
        return next(self._owners)

    def get(self, name: Name) -> list[KeyBlock] | None:
        """Blocks kept under a name."""
        with self._lock:
            if name not in self._kept:
                return None
            self._kept.move_to_end(name)
            return self._kept[name][1]

    def reserve(self, name: Name, size: int) -> bool:
        """Make room for blocks to be read; False where the limit or what others are reading leaves none."""
        with self._lock:
            if sum(self._reading.values()) + size > self.limit:
                return False
            while self.used + size > self.limit:
                self._kept.popitem(last=False)
            self._reading[name] = size
            return True

    def keep(self, name: Name, blocks: list[KeyBlock]) -> None:
        """What was read for a reserved name."""
        with self._lock:
            self._kept[name] = (self._reading.pop(name), blocks)

    def give_up(self, name: Name) -> None:
        """A reserved name could not be read."""
        with self._lock:
            del self._reading[name]

    def forget(self, owner: int) -> None:
        """Give back what one cache kept."""
        with self._lock:
            for name in list(self._kept):
                if name[0] == owner:
                    del self._kept[name]

    def after_fork(self) -> None:
        """In a child, where no thread goes on that held the lock or was reading."""
        self._lock = RLock()
        self._reading.clear()


class KeyCache:
    """The blocks of the vocabularies that were asked of one backend, within a budget that others share."""

    def __init__(self, budget: KeyBudget) -> None:
        self._budget, self._owner = budget, budget.owner()
        self._reading = Lock()  # two threads that ask the same would both read it
        finalize(self, budget.forget, self._owner)
        _shared.add(self)

    def blocks(self, name: Name, size: int, read: Callable[[bool], Iterable[KeyBlock]]) -> Iterable[KeyBlock]:
        """Blocks kept under a name, or read anew; blocks of `size` bytes for which there is no room are not kept.

        `read` is told whether each block may take the memory of the one before.
        """
        name = (self._owner, *name)
        with self._reading:
            kept = self._budget.get(name)
            if kept is not None:
                return kept
            if not self._budget.reserve(name, size):
                return read(True)
            try:
                blocks = list(read(False))
            except BaseException:
                self._budget.give_up(name)
                raise
            self._budget.keep(name, blocks)
            return blocks

    def after_fork(self) -> None:
        """In a child, where the thread that was reading does not go on."""
        self._reading = Lock()


_shared: WeakSet[KeyBudget | KeyCache] = WeakSet()


def _after_fork() -> None:
    for part in _shared:
        part.after_fork()


os.register_at_fork(after_in_child=_after_fork)


@cache
def shared_budget(device: str) -> KeyBudget:
    """The budget of every database that this process searches on a device."""
    return KeyBudget(cache_limit(device))
