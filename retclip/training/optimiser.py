"""Optimiser groups, learning-rate steps and full-model gradient clipping."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

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
        learning_rate: of AdamW, its highest.
        decay: `steps` divides it by ten at each of `steps`; `cosine` takes it to zero along half a cosine.
        steps: iterations.
        warmup: iterations in which it rises in a line.
        weight_decay: except for norms and embedding tables.
        clip: largest L2 norm of all gradients together.
    """

    iterations: int = 368_750
    batch_size: int = 16
    learning_rate: float = 1e-4
    steps: tuple[int, ...] = (327_778, 355_092)
    weight_decay: float = 0.05
    clip: float = 0.01
    decay: Literal["steps", "cosine"] = "steps"
    warmup: int = 0

    def rate(self, iteration: int) -> float:
        """Learning rate of a step, counted from 0."""
        highest = self.learning_rate * min(1.0, (iteration + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            return highest * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
        return highest * 0.1 ** sum(iteration >= step for step in self.steps)


def build_optimiser(model: nn.Module, schedule: Schedule, decay_vectors: bool = True) -> torch.optim.AdamW:
    """AdamW over everything trainable, in two groups: with weight decay, and norms and embedding tables without.

    Args:
        model: network.
        schedule: rates and weight decay.
        decay_vectors: False also exempts biases, gains and scalars (CLIP, section 2.5).
    """
    exempt = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (*NORMS, nn.Embedding))
        for parameter in module.parameters(recurse=False)
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not decay_vectors:
        exempt |= {id(parameter) for parameter in trained if parameter.ndim < 2}
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
