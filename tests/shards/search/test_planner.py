"""Decisions of the planner, each by the fact that makes it."""

from dataclasses import replace

import pytest

from retclip.shards.search.planner import GPU_SHARE, MINIMUM_RECALL, Machine, Work, choose

SMALL = Work(rows=1_000, total=5_000, queries=100, k=32, width=768)
LARGE = Work(rows=10_000_000, total=20_000_000, queries=100, k=32, width=768, indexed=True)
CPU = Machine(cores=2)
KEYS = LARGE.rows * LARGE.width * 2


@pytest.mark.parametrize(
    ("work", "machine", "backend", "said"),
    [
        (SMALL, CPU, "cpu", "quick enough"),
        (replace(SMALL, indexed=True), CPU, "cpu", "as quick as"),
        (SMALL, Machine(2, cuda_bytes=1 << 40), "cpu", "quick enough"),
        (LARGE, CPU, "ivf", "codes"),
        (replace(LARGE, indexed=False), CPU, "cpu", "no index"),
        (LARGE, Machine(16), "ivf", "codes"),
        (replace(LARGE, rows=2_048 * 32), CPU, "ivf", "codes"),
        (replace(LARGE, rows=2_048 * 32 - 1), CPU, "cpu", "as quick as"),
        (replace(LARGE, rows=2_000_000, indexed=False), CPU, "cpu", "quick enough"),
        (replace(LARGE, recall=MINIMUM_RECALL), CPU, "ivf", "codes"),
        (replace(LARGE, recall=MINIMUM_RECALL - 0.01), CPU, "cpu", "found 0.970"),
        (LARGE, Machine(2, cuda_bytes=int(KEYS / GPU_SHARE)), "cuda", "GPU"),
        (LARGE, Machine(2, cuda_bytes=int(KEYS / GPU_SHARE) - 2), "ivf", "codes"),
        (LARGE, Machine(2, faiss_gpus=1), "faiss-gpu", "torch cannot"),
        (replace(LARGE, rows=0), CPU, "cpu", "0 of"),
    ],
)
def test_choice(work, machine, backend, said):
    plan = choose(work, machine)
    assert plan.backend == backend
    assert said in plan.reason
    assert plan.rows_scanned == work.rows
    assert plan.exact == (backend != "ivf")


def test_only_an_index_reports_recall():
    assert choose(replace(LARGE, recall=0.99), CPU).recall == 0.99
    assert choose(replace(LARGE, recall=0.5), CPU).recall is None
