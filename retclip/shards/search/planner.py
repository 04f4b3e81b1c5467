"""Which backend answers a search, and why: pure decisions about size, selectivity, memory and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackendName = Literal["cpu", "cuda", "faiss-gpu", "ivf"]

_GPU_WORK = 1 << 30  # multiplications below which carrying keys to a GPU costs more than the processor needs
_GPU_SHARE = 0.5  # of the memory that is free: encoders live on the same device
_IVF_WORK = 10**8  # rows x queries per core that a processor scans in about half a second; above it an index may pay


@dataclass(frozen=True)
class Work:
    """What a search costs.

    Attributes:
        rows: live rows of the asked classes, all of which an exact search scans; of `total` in the database.
        queries: vectors to search for; width: length of a key.
        indexed: whether every shard with asked rows has an index for the asked transform.
        recall: what the index was measured to find of the true answer for these classes, None before.
    """

    rows: int
    total: int
    queries: int
    width: int
    indexed: bool = False
    recall: float | None = None


@dataclass(frozen=True)
class Machine:
    """What there is to compute with: processor cores, and free bytes of the GPU that torch, or only faiss, can use."""

    cores: int
    cuda_free: int = 0
    faiss_gpu_free: int = 0


@dataclass(frozen=True)
class Plan:
    """The decision for one search.

    Attributes:
        backend: who finds the candidates.
        reason: why, for people.
        rows_scanned: rows an exact search looks at.
        exact: whether the answer is certain; if not, `recall` says how much of it was found on a sample.
        recall: measured recall, None before the first search and for exact plans.
    """

    backend: BackendName
    reason: str
    rows_scanned: int
    exact: bool = True
    recall: float | None = None


MINIMUM_RECALL = 0.98


def choose(work: Work, machine: Machine) -> Plan:
    """The backend for some work on a machine."""
    share = f"{work.rows:,} of {work.total:,} rows"
    keys = work.rows * work.width * 2
    if work.rows * work.queries * work.width >= _GPU_WORK:
        if keys <= machine.cuda_free * _GPU_SHARE:
            return Plan("cuda", f"{share} fit on the GPU", work.rows)
        if keys * 2 <= machine.faiss_gpu_free * _GPU_SHARE:
            return Plan("faiss-gpu", f"{share} fit on the GPU, which faiss can use and torch cannot", work.rows)
    if not work.indexed or work.rows * work.queries <= _IVF_WORK * machine.cores:
        return Plan("cpu", f"{share}: an exact scan of their class ranges is quick enough or has no rival", work.rows)
    if work.recall is not None and work.recall < MINIMUM_RECALL:
        why = f"{share}; the index found {work.recall:.3f} of the true answer, below {MINIMUM_RECALL}"
        return Plan("cpu", why, work.rows)
    return Plan("ivf", f"{share} are many for {machine.cores} cores, and indexed", work.rows, False, work.recall)
