"""A crew of Ray actors, on this machine or on the cluster that RAY_ADDRESS names.

Plain actors and not a Ray Data pipeline: a pipeline wants its input before it starts and retries a deadly row for ever;
here units are planned only as fast as actors take them, a stop lets running ones finish, and retries are bounded.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from retclip.core.errors import InputError, first_line
from retclip.indexer.executors import Death, Queue, Recipe, Results, crew_results
from retclip.indexer.plan import BuildRequest, WorkUnit
from retclip.indexer.processes import threads_for
from retclip.indexer.units import UnitResult, load_unit, run_unit
from retclip.ports.encoders import DenseEncoder
from retclip.shards import Database


class RayExecutor:
    """Units in Ray actors. The database, the corpus and the weights must be at the same paths on every node.

    Args:
        recipe: makes the networks; it and everything in it is pickled to the actors.
        workers: number of actors.
        device: `cpu`; `cuda` for GPUs, which actors share when there are fewer; `auto` takes those there are.

    Raises:
        InputError: E120 for a device that Ray cannot hand out.
    """

    def __init__(self, recipe: Recipe, workers: int, device: str) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(
                "E120",
                f"--device {device} cannot be combined with --executor ray.",
                why="Ray decides which GPU a worker sees.",
                fix="Use --device auto, cpu or cuda.",
            )
        self._recipe, self._workers, self._device = recipe, workers, device

    def results(self, database: Database, queue: Queue) -> Results:
        """See `Executor`."""
        started = not ray.is_initialized()
        if started:
            _connect(self._workers)
        crew = _ActorCrew(self._recipe, self._resources(), database, self._workers)
        try:
            yield from crew_results(crew, queue)
        finally:
            crew.dismiss()
            if started:
                ray.shutdown()

    def _resources(self) -> dict[str, float]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
        asked = {"num_cpus": share_of(cpus, self._workers, threads_for(self._workers))}
        if self._device == "cpu" or (self._device == "auto" and not any(gpus)):
            return asked
        return asked | {"num_gpus": share_of(gpus, self._workers, 1)}


def share_of(nodes: Sequence[int], workers: int, wanted: int) -> float:
    """The largest part of a resource, at most `wanted`, of which every worker gets one.

    An actor that asks for more than is left waits, and Ray says nothing.

    Args:
        nodes: whole units on each node. A cluster that grows on demand may have none yet: then each gets what it wants.
        workers: how many share them.
        wanted: units that a worker can use.
    """
    if not any(nodes):
        return wanted
    for share in range(wanted, 0, -1):
        if sum(units // share for units in nodes) >= workers:
            return share
    return 1 / math.ceil(workers / sum(nodes))


def _connect(workers: int) -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine with room for the workers."""
    speech: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(**speech)
    else:
        cores = max(os.cpu_count() or 1, workers)
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **speech)


class _UnitActor:
    """A worker with its own networks."""

    def __init__(self, recipe: Recipe, device: str, place: tuple[Path, int], threads: int) -> None:
        torch.set_num_threads(threads)
        self._recipe, self._device, self._place = recipe, device, place

    def run(self, unit: WorkUnit) -> UnitResult:
        """What the serial executor does to a unit."""
        request, encoder = self._networks
        return run_unit(load_unit(unit), request, encoder, self._database.live_labels)

    @cached_property
    def _networks(self) -> tuple[BuildRequest, DenseEncoder]:
        # With the first unit and not in __init__, where an error would kill the actor and lose its type.
        return self._recipe(self._device)

    @cached_property
    def _database(self) -> Database:
        return Database.open(*self._place)


class _ActorCrew:
    """See `Crew`."""

    def __init__(self, recipe: Recipe, resources: dict[str, float], database: Database, workers: int) -> None:
        self._size = workers
        device = "cuda" if "num_gpus" in resources else "cpu"
        place = (database.path, database.version)
        # The corpus inside the recipe may be large: it is put into the object store once, not once per actor.
        self._order = (ray.put(recipe), device, place, threads_for(workers))
        self._kind = ray.remote(_UnitActor).options(max_restarts=0, **resources)
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}

    @property
    def size(self) -> int:
        return self._size

    def give(self, worker: int, unit: WorkUnit) -> None:
        if worker not in self._actors:
            self._actors[worker] = self._kind.remote(*self._order)
        self._answers[self._actors[worker].run.remote(unit)] = worker

    def answer(self) -> tuple[int, UnitResult | Death]:
        (ready, *_), _ = ray.wait(list(self._answers), num_returns=1)
        worker = self._answers.pop(ready)
        try:
            result: UnitResult = ray.get(ready)
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:  # the actor, its node, its memory or its answer was lost
            ray.kill(self._actors.pop(worker))
            return worker, Death(f"A worker was lost ({first_line(error)})")
        return worker, result

    def dismiss(self) -> None:
        """End all actors; they write nothing, so nothing can be left half done."""
        for actor in self._actors.values():
            ray.kill(actor)
