"""The state of a training run on disk, and its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retclip.core.errors import InputError, first_line, translated


@dataclass(frozen=True)
class RunState:
    """Everything a run needs to go on: trained parameters, optimiser, loss scaler, steps done, and which run it is."""

    model: Mapping[str, Tensor]
    optimiser: dict[str, Any]
    scaler: dict[str, Any]
    iteration: int
    identity: dict[str, Any]


def write_state(path: Path, state: RunState) -> None:
    """Replace the state on disk in one step; a run that is killed leaves the old one or the new one."""
    unfinished = path.with_suffix(".part")
    torch.save(vars(state), unfinished)
    unfinished.replace(path)


def read_state(path: Path, device: torch.device) -> RunState:
    """Read what `write_state` wrote; no code in it is run. Raises InputError E178 for any other file."""

    def explain(error: Exception) -> InputError:
        return InputError(
            "E178",
            f"{path} is no state of a training run.",
            why=first_line(error),
            fix="Remove it to start anew, or put a copy in its place.",
        )

    # The unpickler raises many types on damaged or hostile files; none of them may get further than this.
    with translated(explain):
        return RunState(**torch.load(path, map_location=device, weights_only=True))


def read_own_state(path: Path, identity: Mapping[str, Any], device: torch.device) -> RunState | None:
    """The state of this very run, None before its first.

    Raises:
        InputError: E175 when the state found is another run's, E178 when it is none.
    """
    if not path.exists():
        return None
    state = read_state(path, device)
    differing = [name for name in identity if state.identity.get(name) != identity[name]]
    if differing:
        raise InputError(
            "E175",
            f"{path} belongs to another run.",
            why=f"It differs in: {', '.join(differing)}.",
            fix="Choose another output folder, or the settings of that run.",
        )
    return state


def append_log(path: Path, entry: Mapping[str, float]) -> None:
    """Add a line to a JSON-lines log."""
    with path.open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
