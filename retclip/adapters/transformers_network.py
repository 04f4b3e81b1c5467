"""Networks of the transformers library, built from files that nobody vouches for and only from local ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from retclip.core.errors import ModelError, first_line, translated

# The largest published config.json has a few kB; more than this is no description of a network.
_MOST_JSON_BYTES = 1_000_000


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file. Raises ModelError E202 for anything else."""
    try:
        too_large = path.stat().st_size > _MOST_JSON_BYTES
        value = None if too_large else json.loads(path.read_text(encoding="utf-8"))
        why = "The file is too large." if too_large else f"It holds a {type(value).__name__}."
    except (OSError, ValueError, RecursionError) as error:
        value, why = None, first_line(error)
    if not isinstance(value, dict):
        raise ModelError("E202", f"{path} is no complete JSON object.", why=why, fix="Copy or download the file again.")
    return value


def load_network(
    kind: type[PreTrainedModel], config: PretrainedConfig, tensors: Mapping[str, Tensor], path: Path, name: str
) -> nn.Module:
    """A float32 network in evaluation mode that holds exactly these tensors.

    The library itself translates the names that its files use into those of its modules, which differ and change
    from version to version; what it would pass over in silence (missing, surplus, reshaped) is refused here.

    Args:
        kind: class of the network.
        config: its sizes.
        tensors: by the names that `save_pretrained` writes.
        path: where the tensors come from, for messages.
        name: what the user calls the network.

    Raises:
        ModelError: E207 when the tensors are not exactly those of the network.
    """
    # Sizes that contradict each other make constructors and converters raise whatever they meet first.
    with translated(lambda error: _misfit(path, name, first_line(error))), _quiet():
        network, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    problems = _differences(report)
    if problems:
        raise _misfit(path, name, "; ".join(problems))
    result: nn.Module = network.eval().requires_grad_(False)
    return result


def _differences(report: Mapping[str, Any]) -> list[str]:
    """The first names and shapes in which tensors and network differ, from the library's report."""
    named = ((what, sorted(report[f"{what}_keys"])[:3]) for what in ("missing", "unexpected"))
    reshaped = sorted(report["mismatched_keys"])[:3]
    return [f"{what} {keys}" for what, keys in named if keys] + [
        f"{key} {tuple(given)} instead of {tuple(wanted)}" for key, given, wanted in reshaped
    ]


def _misfit(path: Path, name: str, why: str) -> ModelError:
    return ModelError(
        "E207",
        f"{path} does not fit '{name}'.",
        why=why,
        fix="Name in the preset the model that the weights belong to.",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bar and its table of keys: our own error says what does not fit."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
