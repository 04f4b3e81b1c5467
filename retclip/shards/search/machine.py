"""What there is to compute with."""

from __future__ import annotations

import importlib.util
import os

from retclip.shards.search.planner import Machine


def cache_limit() -> int:
    """Bytes of keys to keep: a quarter of the memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4


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
