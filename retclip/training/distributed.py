"""Several workers through PyTorch's own launcher (`torchrun`), or one without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Workers:
    """This process among its peers. rank: 0 .. count - 1; device: where it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """The value averaged over all workers."""
        if self.count == 1:
            return value
        total = torch.tensor(value, device=self.device, dtype=torch.float64)
        dist.all_reduce(total)
        return total.item() / self.count


@contextmanager
def join_workers(device: str) -> Iterator[Workers]:
    """Join the peers that `torchrun` started (RANK, WORLD_SIZE, LOCAL_RANK); alone without these variables.

    Args:
        device: `cpu`, or `cuda` for one GPU per worker.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    place = torch.device(device, local) if device == "cuda" else torch.device(device)
    if count == 1:
        yield Workers(0, 1, place)
        return
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Workers(dist.get_rank(), count, place)
    finally:
        dist.destroy_process_group()
