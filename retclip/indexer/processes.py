"""A crew of local processes."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from retclip.indexer.executors import Death, Queue, Recipe, Results, crew_results
from retclip.indexer.plan import WorkUnit
from retclip.indexer.units import UnitResult, load_unit, run_unit
from retclip.shards import Database


class ProcessExecutor:
    """Units in worker processes of this machine.

    Workers share this process's threads evenly: as many threads in each as in all of a serial run would crowd the
    processor. Results do not depend on the number of workers, but sums round by the number of threads in each.

    Args:
        recipe: makes the networks; it and everything in it is pickled to the workers.
        devices: one per worker.
    """

    def __init__(self, recipe: Recipe, devices: Sequence[str]) -> None:
        self._recipe, self._devices = recipe, tuple(devices)

    def results(self, database: Database, queue: Queue) -> Results:
        """See `Executor`."""
        crew = _ProcessCrew(self._recipe, self._devices, database)
        try:
            yield from crew_results(crew, queue)
        finally:
            crew.dismiss()


def threads_for(workers: int) -> int:
    """Threads of each of so many workers, that together they have no more than this process."""
    return max(1, torch.get_num_threads() // workers)


class _ProcessCrew:
    """See `Crew`. Processes are spawned, not forked: CUDA and threads do not survive a fork."""

    def __init__(self, recipe: Recipe, devices: Sequence[str], database: Database) -> None:
        self._recipe, self._devices = recipe, devices
        self._place = (database.path, database.version)
        self._members: dict[int, tuple[SpawnProcess, Connection]] = {}
        self._running: dict[Connection, int] = {}

    @property
    def size(self) -> int:
        return len(self._devices)

    def give(self, worker: int, unit: WorkUnit) -> None:
        if worker not in self._members:
            self._members[worker] = self._hire(worker)
        connection = self._members[worker][1]
        self._running[connection] = worker
        # A worker that died while it was idle shows itself in `answer`.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(unit)

    def _hire(self, worker: int) -> tuple[SpawnProcess, Connection]:
        context = get_context("spawn")
        mine, theirs = context.Pipe()
        order = (theirs, self._recipe, self._devices[worker], self._place, threads_for(self.size))
        process = context.Process(target=_serve, args=order, name=f"retclip-worker-{worker}", daemon=True)
        process.start()
        theirs.close()  # held open here, the pipe would not tell of the worker's death
        return process, mine

    def answer(self) -> tuple[int, UnitResult | Death]:
        connection = next(item for item in wait(list(self._running)) if isinstance(item, Connection))
        worker = self._running.pop(connection)
        try:
            answer: UnitResult | Exception = connection.recv()
        except (EOFError, OSError):
            return worker, self._bury(worker)
        if isinstance(answer, Exception):
            raise answer
        return worker, answer

    def _bury(self, worker: int) -> Death:
        process, connection = self._members.pop(worker)
        connection.close()
        process.join()
        code = process.exitcode or 0
        if code == -signal.SIGKILL:
            return Death("A worker was killed, as the system does when memory runs out")
        return Death("A worker ended with " + (signal.Signals(-code).name if code < 0 else f"exit code {code}"))

    def dismiss(self) -> None:
        """End all workers; they write nothing, so nothing can be left half done."""
        for process, connection in self._members.values():
            connection.close()
            process.kill()
            process.join()


def _serve(connection: Connection, recipe: Recipe, device: str, place: tuple[Path, int], threads: int) -> None:
    """A worker: units come in and results go out until the other end is gone."""
    # Ctrl-C reaches every process of a terminal; the units that are running are to be finished.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    try:
        request, encoder = recipe(device)
        database = Database.open(*place)
        while True:
            unit: WorkUnit = connection.recv()
            connection.send(run_unit(load_unit(unit), request, encoder, database.live_labels))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the process that gives the units is gone
    except Exception as error:
        error.add_note("In a worker process:\n" + traceback.format_exc())
        connection.send(error)
