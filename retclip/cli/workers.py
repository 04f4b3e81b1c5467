"""`--executor` and `--workers`: who runs the units of an index command."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.indexer.executors import Executor, Recipe

EXECUTORS = ("serial", "processes", "ray")
_DEFAULT_WORKERS = 2

ExecutorOption = Annotated[
    str, typer.Option(help="serial; processes of this machine; or ray: the cluster of RAY_ADDRESS, else this machine.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes or Ray actors, each with networks of its own. Default: 2.")
]


@dataclass(frozen=True)
class Workforce:
    """Who runs the units.

    Attributes:
        kind: one of `EXECUTORS`.
        size: number of workers, 1 for serial.
    """

    kind: str
    size: int

    def device_here(self, device: str) -> str:
        """Device of this process: workers need the GPUs, and what they load is only checked here."""
        return device if self.kind == "serial" else "cpu"

    def executor(self, recipe: Recipe, device: str) -> Executor | None:
        """The executor, None for the serial one, which needs no recipe."""
        if self.kind == "processes":
            from retclip.indexer.processes import ProcessExecutor

            return ProcessExecutor(recipe, _devices(device, self.size))
        if self.kind == "ray":
            from retclip.adapters.ray_executor import RayExecutor

            return RayExecutor(recipe, self.size, device)
        return None


def parse_workforce(executor: str, workers: int | None) -> Workforce:
    """What --executor and --workers mean. Raises InputError E120, and E331 where Ray is not installed."""
    if executor not in EXECUTORS:
        why = f"Known are {', '.join(EXECUTORS)}."
        raise InputError("E120", f"Unknown --executor '{executor}'.", why=why, fix="Correct it.")
    if executor == "serial" and workers is not None:
        why = "The serial executor has no workers."
        raise InputError("E120", "--workers needs another executor.", why=why, fix="Add --executor processes.")
    if executor == "ray" and importlib.util.find_spec("ray") is None:
        why = "--executor ray runs its workers with it."
        raise InputError("E331", "The library 'ray' is not installed.", why=why, fix='pip install "retclip[ray]"')
    return Workforce(executor, 1 if executor == "serial" else workers or _DEFAULT_WORKERS)


def _devices(device: str, workers: int) -> list[str]:
    """One device per worker: GPUs are dealt out in turn."""
    import torch

    if device in ("auto", "cuda") and torch.cuda.is_available():
        return [f"cuda:{number % torch.cuda.device_count()}" for number in range(workers)]
    return [device] * workers
