"""What there is to compute with."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path

from retclip.shards.search.planner import GPU_SHARE, Machine

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def cache_limit(device: str) -> int:
    """Bytes of keys to keep: a quarter of the memory that this process may use, or `GPU_SHARE` of a GPU's."""
    if device != "cpu":
        return int(machine().cuda_bytes * GPU_SHARE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no control group, or one without a limit, whose file says "max"
        memory = min(memory, int(CONTAINER_LIMIT.read_text()))
    return memory // 4


def machine() -> Machine:
    """Cores and GPU of this process."""
    import torch  # `db info` does without

    if torch.cuda.is_available():
        return Machine(torch.get_num_threads(), cuda_bytes=torch.cuda.mem_get_info()[1])
    return Machine(torch.get_num_threads(), faiss_gpus=_faiss_gpus())


def _faiss_gpus() -> int:
    if importlib.util.find_spec("faiss") is None:
        return 0
    import faiss

    # Builds without CUDA count no devices and have no resources to search with.
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
