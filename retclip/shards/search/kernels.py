"""How scores are computed: number formats and matrix products, each with a proven error, and the fastest of them.

Which one is fastest depends on the processor (AVX512-BF16 or AMX against plain FMA) and on the BLAS that numpy and
torch were built with, so it is measured once per process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

# Queries are shrunk by this, so that a product of rounded unit vectors stays below 1 and its rounding below half an ulp
# of [0.5, 1): for bfloat16 that is half of what products around 1 would cost.
SHRINK = 1.0 - 2.0**-6
PAD = 64  # columns of scores come in multiples of it, so that they can be viewed as groups
_TEST_ROWS, _TEST_QUERIES, _TEST_DIM, _TEST_ROUNDS = 4_096, 100, 768, 3


@dataclass(frozen=True)
class Kernel:
    """One way to multiply queries by keys.

    Attributes:
        name: shown in plans.
        dtype, device: how keys are held.
        product: (M, r) queries, (n, r) keys -> (M, n) scores in any float format.
        rounding: largest error of rounding one score below 1 to the format of `product`.
    """

    name: str
    dtype: torch.dtype
    device: str
    product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    rounding: float

    def rounded(self, keys: npt.NDArray[np.float64]) -> tuple[torch.Tensor, float]:
        """(n, r) keys in this kernel's format, and the largest Euclidean length of what rounding took from a row."""
        exact = torch.from_numpy(keys)
        held = exact.to(self.dtype)
        lost = torch.linalg.vector_norm(exact - held.double(), dim=1)
        return held.to(self.device), float(lost.max()) if len(keys) else 0.0

    def scores(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """(M, n') float32 products; n' is n rounded up to a multiple of `PAD`, the spare columns are -inf."""
        width = len(keys) + -len(keys) % PAD
        scores = torch.empty((len(queries), width), device=self.device)
        scores[:, : len(keys)] = self.product(queries, keys)
        scores[:, len(keys) :] = -torch.inf
        return scores

    def error(self, dim: int, query_loss: float, key_loss: float) -> float:
        """Largest distance of a score from SHRINK times the true cosine.

        Cauchy-Schwarz for what rounding took from both vectors; `dim` units of 2^-24 for the float32 sum (Higham,
        Accuracy and Stability of Numerical Algorithms, 3.1); the rest is margin, of which 2 units are spent on the
        rounding of distances to float32.
        """
        return query_loss + key_loss + (dim + 16) * 2.0**-24 + self.rounding


def _matmul(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return queries @ keys.T


def _numpy_matmul(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(queries.numpy() @ keys.numpy().T)


def _cuda_matmul(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    settings.allow_fp16_reduced_precision_reduction = False  # sums in float32, as `Kernel.error` assumes
    try:
        return queries @ keys.T
    finally:
        settings.allow_fp16_reduced_precision_reduction = before


NUMPY_FLOAT32 = Kernel("numpy float32", torch.float32, "cpu", _numpy_matmul, 0.0)
TORCH_FLOAT32 = Kernel("torch float32", torch.float32, "cpu", _matmul, 0.0)
TORCH_BFLOAT16 = Kernel("torch bfloat16", torch.bfloat16, "cpu", _matmul, 2.0**-9)
CPU_KERNELS = (NUMPY_FLOAT32, TORCH_FLOAT32, TORCH_BFLOAT16)


def float16_kernel(device: str) -> Kernel:
    """Half precision on a torch device; meant for GPUs, right on every device."""
    return Kernel("torch float16", torch.float16, device, _cuda_matmul, 2.0**-12)


@cache
def fastest_cpu_kernel() -> Kernel:
    """The kernel with the shortest product here, of those whose error stays inside their bound; takes about 50 ms."""
    rng = np.random.default_rng(0)
    keys, queries = (rng.standard_normal((n, _TEST_DIM)) for n in (_TEST_ROWS, _TEST_QUERIES))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries *= SHRINK / np.linalg.norm(queries, axis=1, keepdims=True)
    truth = torch.from_numpy(queries @ keys.T)
    seconds = {kernel: _trial(kernel, queries, keys, truth) for kernel in CPU_KERNELS}
    return min(seconds, key=seconds.__getitem__)


def _trial(
    kernel: Kernel, queries: npt.NDArray[np.float64], keys: npt.NDArray[np.float64], truth: torch.Tensor
) -> float:
    """Seconds of the best of a few products; infinite for a kernel that is less accurate than it promises."""
    (held_queries, query_loss), (held_keys, key_loss) = kernel.rounded(queries), kernel.rounded(keys)
    scores = kernel.scores(held_queries, held_keys)
    if float((scores - truth).abs().max()) > kernel.error(keys.shape[1], query_loss, key_loss):
        return float("inf")
    best = float("inf")
    for _ in range(_TEST_ROUNDS):
        begun = time.perf_counter()
        kernel.scores(held_queries, held_keys)
        best = min(best, time.perf_counter() - begun)
    return best
