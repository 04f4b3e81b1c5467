"""Products of chosen rows, by FAISS's threads.

Those of a BLAS would spin on for a while after their product, on the cores that FAISS needs next.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.shards.search.quick_keys import Keys

Rows = npt.NDArray[np.int64]


def products_with(asked: Keys, others: Keys, some: Rows) -> Keys:
    """(M, n) products of (M, r) with the rows `some` (n,) of (N, r)."""
    product, every = np.empty((len(asked), len(some)), np.float32), np.tile(some, (len(asked), 1))
    _call("fvec_inner_products_by_idx", product, asked, others, every, asked.shape[1], *product.shape)
    return product


def products_of_pairs(asked: Keys, query: Rows, others: Keys, row: Rows) -> Keys:
    """(n,) products of rows `query` of (M, r) and rows `row` of (N, r); by one thread, as callers are several."""
    import faiss

    product = np.empty(len(query), np.float32)
    usual = faiss.omp_get_max_threads()  # of this thread alone, as is what is set
    faiss.omp_set_num_threads(1)
    try:
        _call("pairwise_indexed_inner_product", asked.shape[1], len(query), asked, query, others, row, product)
    finally:
        faiss.omp_set_num_threads(usual)
    return product


def _call(name: str, *arguments: npt.NDArray[Any] | int) -> None:
    """One of FAISS's functions that its types leave out. It sees pointers, so the arrays must outlive the call."""
    import faiss

    library: Any = faiss
    lasting = [part if isinstance(part, int) else np.ascontiguousarray(part) for part in arguments]
    getattr(library, name)(*(part if isinstance(part, int) else library.swig_ptr(part) for part in lasting))


def _after_fork() -> None:
    # The thread that forked would wait for FAISS's threads, which the child does not have.
    if "faiss" in sys.modules:
        sys.modules["faiss"].omp_set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
