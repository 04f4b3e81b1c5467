"""Who runs the units of a build: this process, or a crew of workers with networks of their own.

Every executor calls the same `load_unit` and `run_unit`, and none of them writes: results come back to the one process
that holds the ledger, so a worker may die at any instant, and workers need not see the database's folder as writable.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Protocol

from retclip.core.errors import ResourceError
from retclip.core.prefetch import prefetched
from retclip.indexer.plan import BuildRequest, WorkUnit
from retclip.indexer.units import UnitResult, load_unit, run_unit
from retclip.ports.encoders import DenseEncoder
from retclip.shards import Database

MAX_DEATHS = 3  # one may be bad luck and two a crowded machine; the third says it is these pictures

# What a unit needs beside its pictures, made on a device: in every worker anew, so it is the recipe that travels.
Recipe = Callable[[str], tuple[BuildRequest, DenseEncoder]]
Results = Generator[tuple[WorkUnit, UnitResult | None], None, None]


@dataclass(frozen=True)
class Queue:
    """What is to be done.

    Attributes:
        units: the plan, read as work is taken and no faster.
        is_done: whether a unit was finished by an earlier run.
        is_stopping: whether no further unit may be begun.
    """

    units: Iterable[WorkUnit]
    is_done: Callable[[WorkUnit], bool]
    is_stopping: Callable[[], bool]


class Executor(Protocol):
    """Runs units."""

    def results(self, database: Database, queue: Queue) -> Results:
        """Units in the order in which they are finished, None for those that were done before.

        Once the queue is stopping, no unit is begun, and those that are running are still given.
        """
        ...


class SerialExecutor:
    """Units one after another in this process; a thread decodes the next one's pictures."""

    def __init__(self, request: BuildRequest, encoder: DenseEncoder) -> None:
        self._request, self._encoder = request, encoder

    def results(self, database: Database, queue: Queue) -> Results:
        """See `Executor`; the order is that of the plan."""
        loading = ((unit, None if queue.is_done(unit) else load_unit(unit)) for unit in queue.units)
        for unit, loaded in prefetched(loading, ahead=1):
            if queue.is_stopping():
                return
            done = None if loaded is None else run_unit(loaded, self._request, self._encoder, database.live_labels)
            yield unit, done


@dataclass(frozen=True)
class Death:
    """How a worker ended that gave no answer."""

    cause: str


class Crew(Protocol):
    """Workers, numbered from 0, that run one unit at a time; one that died is replaced when it is given a unit."""

    @property
    def size(self) -> int:
        """How many workers there may be."""
        ...

    def give(self, worker: int, unit: WorkUnit) -> None:
        """Let an idle worker begin a unit."""
        ...

    def answer(self) -> tuple[int, UnitResult | Death]:
        """Wait for the next worker to finish or to die. Raises the error that stopped a worker's unit."""
        ...


def crew_results(crew: Crew, queue: Queue) -> Results:
    """Results of a crew, see `Executor.results`; the unit of a worker that dies is given to another.

    Raises:
        ResourceError: E330 when `MAX_DEATHS` workers died at the same unit.
    """
    plan = iter(queue.units)
    idle = list(range(crew.size))
    running: dict[int, WorkUnit] = {}
    again: deque[WorkUnit] = deque()
    deaths: Counter[str] = Counter()
    while True:
        while idle and not queue.is_stopping():
            unit = again.popleft() if again else next(plan, None)
            if unit is None:
                break
            if queue.is_done(unit):
                yield unit, None
                continue
            worker = idle.pop()
            running[worker] = unit
            crew.give(worker, unit)
        if not running:
            return
        worker, answer = crew.answer()
        unit = running.pop(worker)
        idle.append(worker)
        if isinstance(answer, Death):
            deaths[unit.key] += 1
            if deaths[unit.key] == MAX_DEATHS:
                raise _deadly(unit, answer)
            again.append(unit)
        else:
            yield unit, answer


def _deadly(unit: WorkUnit, death: Death) -> ResourceError:
    return ResourceError(
        "E330",
        f"{MAX_DEATHS} workers died at the same pictures.",
        why=f"{death.cause}. Pictures: " + ", ".join(image.image_id for image in unit.images) + ".",
        fix="Finished units are kept. Run the same command with fewer --workers or a lower index.batch in the preset, "
        "or with --executor serial to see the cause.",
    )
