"""Which backend answers a search, and why: pure decisions about size, selectivity, memory and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackendName = Literal["cpu", "cuda", "faiss-gpu", "ivf"]

MINIMUM_RECALL = 0.98  # an index that finds less on a sample is not used
_GPU_WORK = 1 << 30  # multiplications below which carrying keys to a GPU costs more than the processor needs
GPU_SHARE = 0.5  # of its memory, for keys: encoders live on the same device
_SCAN_WORK = 10**8  # rows x queries per core that a processor scans in about half a second
_INDEX_ROWS = 2_048  # asked rows for each hit; of fewer, a scan is done before what may be near is measured


@dataclass(frozen=True)
class Work:
    """What a search costs.

    Attributes:
        rows: live rows of the asked classes, all of which an exact search scans; of `total` in the database.
        queries: vectors to search for, k hits each; width: length of a key.
        indexed: whether every shard with asked rows has an index for the asked transform.
        recall: what the index was measured to find of the true answer for these classes, None before.
    """

    rows: int
    total: int
    queries: int
    k: int
    width: int
    indexed: bool = False
    recall: float | None = None


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        cores: threads that torch uses.
        cuda_bytes: memory of the GPU that torch can use, 0 = none.
        faiss_gpus: GPUs that faiss can use; they read keys from the machine's memory, block by block.
    """

    cores: int
    cuda_bytes: int = 0
    faiss_gpus: int = 0


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


def choose(work: Work, machine: Machine) -> Plan:
    """The backend for some work on a machine."""
    share = f"{work.rows:,} of {work.total:,} rows"
    keys = work.rows * work.width * 2
    if work.rows * work.queries * work.width >= _GPU_WORK:
        if keys <= machine.cuda_bytes * GPU_SHARE:
            return Plan("cuda", f"{share}: their keys fit on the GPU", work.rows)
        if machine.faiss_gpus:
            return Plan("faiss-gpu", f"{share}: there is a GPU that faiss can use and torch cannot", work.rows)
    exact = f"{share}: an exact scan of their class ranges"
    if not work.indexed:
        quick = work.rows * work.queries <= _SCAN_WORK * machine.cores
        return Plan("cpu", f"{exact} is quick enough" if quick else f"{exact}; no index fits the request", work.rows)
    if work.rows < _INDEX_ROWS * work.k:
        return Plan("cpu", f"{exact} is as quick as their index", work.rows)
    if work.recall is not None and work.recall < MINIMUM_RECALL:
        why = f"{share}; the index found {work.recall:.3f} of the true answer, below {MINIMUM_RECALL}"
        return Plan("cpu", why, work.rows)
    why = f"{share}: their codes are scanned, and what may be near is measured"
    return Plan("ivf", why, work.rows, False, work.recall)
