"""Optimiser groups, learning-rate steps and full-model gradient clipping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retclip.core.errors import ModelError

NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@dataclass(frozen=True)
class Schedule:
    """The released recipe by default.

    Attributes:
        iterations: optimiser steps of the whole run.
        batch_size: images per step over all workers.
        learning_rate: of AdamW; divided by ten at each of `steps`.
        steps: iterations.
        weight_decay: except for norms and embedding tables.
        clip: largest L2 norm of all gradients together.
    """

    iterations: int = 368_750
    batch_size: int = 16
    learning_rate: float = 1e-4
    steps: tuple[int, ...] = (327_778, 355_092)
    weight_decay: float = 0.05
    clip: float = 0.01

    def rate(self, iteration: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self.learning_rate * 0.1 ** sum(iteration >= step for step in self.steps)


def build_optimiser(model: nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW over everything trainable, in two groups: with weight decay, and norms and embedding tables without."""
    exempt = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (*NORMS, nn.Embedding))
        for parameter in module.parameters(recurse=False)
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in exempt], "weight_decay": schedule.weight_decay},
        {"params": [p for p in trained if id(p) in exempt], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def step(
    loss: Tensor, optimiser: torch.optim.Optimizer, scaler: torch.amp.GradScaler, schedule: Schedule, iteration: int
) -> Tensor:
    """One update; returns the L2 norm of all gradients before clipping. Raises ModelError (E210) if not finite."""
    for group in optimiser.param_groups:
        group["lr"] = schedule.rate(iteration)
    optimiser.zero_grad(set_to_none=True)
    torch.autograd.backward(scaler.scale(loss))
    scaler.unscale_(optimiser)
    norm: Tensor = nn.utils.clip_grad_norm_(
        [p for group in optimiser.param_groups for p in group["params"]], schedule.clip
    )
    # With loss scaling such a step is skipped and the scale lowered; without it the weights would be lost.
    if not scaler.is_enabled() and not torch.isfinite(norm):
        raise ModelError(
            "E210",
            f"The gradient is {norm.item()} at iteration {iteration}.",
            why="Training has diverged.",
            fix="Resume from the last saved state with a smaller learning rate.",
        )
    scaler.step(optimiser)
    scaler.update()
    return norm
