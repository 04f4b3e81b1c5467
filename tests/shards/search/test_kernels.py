"""Every kernel keeps the error it promises."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from retclip.shards.search import kernels
from retclip.shards.search.kernels import CPU_KERNELS, PAD, SHRINK, Kernel, fastest_cpu_kernel, float16_kernel

EVERY = (*CPU_KERNELS, float16_kernel("cpu"))


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("dim", [2, 64, 768])
def test_scores_stay_inside_the_bound(kernel, dim):
    rng = np.random.default_rng(dim)
    keys = rng.normal(size=(300, dim)) ** 3
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    keys[7] = 0.0
    queries, query_loss = kernel.rounded(keys[:50] * SHRINK)
    held, loss = kernel.rounded(keys)
    scores = kernel.scores(queries, held).numpy()
    assert scores.shape == (320, 50)
    assert np.isneginf(scores[300:]).all()
    assert PAD == 64
    assert np.abs(scores[:300] - SHRINK * keys @ keys[:50].T).max() <= kernel.error(dim, query_loss, loss)


@pytest.mark.parametrize("kernel", EVERY, ids=lambda kernel: kernel.name)
def test_what_was_in_the_room_before_is_gone(kernel):
    rng = np.random.default_rng(0)
    queries, keys = (kernel.rounded(rng.normal(size=(n, 16)) / 16)[0] for n in (5, 70))
    room = torch.full((128 * 5 + 3,), torch.nan)
    scores = kernel.scores(queries, keys, room)
    assert scores.data_ptr() == room.data_ptr()
    assert torch.equal(scores, kernel.scores(queries, keys))
    assert torch.isnan(room[128 * 5 :]).all()


def test_a_kernel_that_breaks_its_promise_is_not_chosen(monkeypatch):
    honest = kernels.TORCH_FLOAT32
    liar = Kernel("liar", honest.dtype, "cpu", lambda queries, keys, out: out.copy_(keys @ queries.T + 0.5), 0.0)
    monkeypatch.setattr(kernels, "CPU_KERNELS", (liar, honest))
    fastest_cpu_kernel.cache_clear()
    try:
        assert fastest_cpu_kernel() is honest
    finally:
        fastest_cpu_kernel.cache_clear()


def test_the_choice_is_made_once():
    assert fastest_cpu_kernel() is fastest_cpu_kernel()
    assert fastest_cpu_kernel() in CPU_KERNELS


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
@pytest.mark.parametrize("kernel", CPU_KERNELS, ids=lambda kernel: kernel.name)
def test_no_thread_that_holds_keys_wakes_others(kernel):
    """Each thread of a pool would start as many as there are cores."""
    started = []

    def hold():
        before = {task.name for task in Path("/proc/self/task").iterdir()}
        kernel.hold(np.ones((512, 768), np.float32), torch.empty((512, 768), dtype=kernel.dtype))
        started.extend({task.name for task in Path("/proc/self/task").iterdir()} - before)

    threads = torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(threads)
    assert started == []
