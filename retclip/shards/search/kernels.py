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

from retclip.shards.search.quick_keys import cast, squared_lengths

# Queries are shrunk by this, so that a product of rounded unit vectors stays below 1 and its rounding below half an ulp
# of [0.5, 1): for bfloat16 that is half of what products around 1 would cost.
SHRINK = 1.0 - 2.0**-6
PAD = 64  # rows of scores come in multiples of it, so that they can be viewed as groups
_TEST_ROWS, _TEST_QUERIES, _TEST_DIM, _TEST_ROUNDS = 4_096, 100, 768, 5
_HOPELESS = 3.0  # times slower than the best so far: not timed again


@dataclass(frozen=True)
class Kernel:
    """One way to multiply queries by keys.

    Attributes:
        name: shown in plans.
        dtype, device: how keys are held.
        product: writes the scores of (M, r) queries and (n, r) keys into (n, M) float32. A row for each key: the
            long side is then the one that BLAS shares out among threads, and the maximum over keys runs along queries.
        rounding: largest error of rounding one score below 1 to the format that `product` computes.
    """

    name: str
    dtype: torch.dtype
    device: str
    product: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], object]
    rounding: float

    def rounded(self, keys: npt.NDArray[np.float64]) -> tuple[torch.Tensor, float]:
        """(n, r) keys in this kernel's format, and the largest Euclidean length of what rounding took from a row."""
        # numpy where it can: few numbers are not worth waking torch's threads for.
        whole = self.dtype == torch.float32
        held = torch.from_numpy(keys.astype(np.float32)) if whole else torch.from_numpy(keys).to(self.dtype)
        lost = keys - held.float().numpy()
        longest = float(np.sqrt(np.einsum("ij,ij->i", lost, lost).max(initial=0.0)))
        return held.to(self.device), longest

    @property
    def is_numpy(self) -> bool:
        """Whether keys are float32 numbers that numpy can write."""
        return self.dtype == torch.float32 and self.device == "cpu"

    def hold(self, keys: npt.NDArray[np.float32], target: torch.Tensor) -> float:
        """Write (n, r) keys into `target` in this kernel's format; see `rounded` for what is returned."""
        held = target if self.device == "cpu" else torch.empty(target.shape, dtype=self.dtype)
        cast(torch.from_numpy(keys), held)
        if held is not target:
            target.copy_(held)
        back = np.empty_like(keys)
        cast(held, torch.from_numpy(back))
        lost = squared_lengths(np.subtract(keys, back, out=back))  # exact differences: neighbours in size
        return float(np.sqrt(lost.max(initial=0.0))) * (1 + 2.0**-16)

    def scores(self, queries: torch.Tensor, keys: torch.Tensor, room: torch.Tensor | None = None) -> torch.Tensor:
        """(n', M) float32 products; n' is n rounded up to a multiple of `PAD`, the spare rows are -inf.

        `room`: float32 numbers, at least n' * M, to write into; fresh memory costs a page fault every 1,024 scores.
        """
        shape = (len(keys) + -len(keys) % PAD, len(queries))
        if room is None:
            room = torch.empty(shape[0] * shape[1], device=self.device)
        scores = room[: shape[0] * shape[1]].view(shape)
        self.product(queries, keys, scores[: len(keys)])
        scores[len(keys) :] = -torch.inf
        return scores

    def error(self, dim: int, query_loss: float, key_loss: float) -> float:
        """Largest distance of a score from SHRINK times the true cosine.

        Cauchy-Schwarz for what rounding took from both vectors; `dim` units of 2^-24 for the float32 sum (Higham,
        Accuracy and Stability of Numerical Algorithms, 3.1); the rest is margin, of which 2 units are spent on the
        rounding of distances to float32.
        """
        return query_loss + key_loss + (dim + 16) * 2.0**-24 + self.rounding


def _matmul(queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
    torch.mm(keys, queries.T, out=out)


def _numpy_matmul(queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
    np.matmul(keys.numpy(), queries.numpy().T, out=out.numpy())


def _widened_matmul(queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(keys @ queries.T)


def _turned_matmul(queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_((queries @ keys.T).T)


def _cuda_matmul(queries: torch.Tensor, keys: torch.Tensor, out: torch.Tensor) -> None:
    settings = torch.backends.cuda.matmul
    before = settings.allow_fp16_reduced_precision_reduction
    settings.allow_fp16_reduced_precision_reduction = False  # sums in float32, as `Kernel.error` assumes
    try:
        _widened_matmul(queries, keys, out)
    finally:
        settings.allow_fp16_reduced_precision_reduction = before


NUMPY_FLOAT32 = Kernel("numpy float32", torch.float32, "cpu", _numpy_matmul, 0.0)
TORCH_FLOAT32 = Kernel("torch float32", torch.float32, "cpu", _matmul, 0.0)
TORCH_BFLOAT16 = Kernel("torch bfloat16", torch.bfloat16, "cpu", _widened_matmul, 2.0**-9)
# Which side of the product oneDNN packs, and how well, depends on the processor.
TURNED_BFLOAT16 = Kernel("torch bfloat16, queries first", torch.bfloat16, "cpu", _turned_matmul, 2.0**-9)
CPU_KERNELS = (NUMPY_FLOAT32, TORCH_FLOAT32, TORCH_BFLOAT16, TURNED_BFLOAT16)


def float16_kernel(device: str) -> Kernel:
    """Half precision on a torch device; meant for GPUs, right on every device."""
    return Kernel("torch float16", torch.float16, device, _cuda_matmul, 2.0**-12)


@cache
def fastest_cpu_kernel() -> Kernel:
    """The kernel with the shortest product here, of those whose error stays inside their bound; takes about 0.2 s."""
    rng = np.random.default_rng(0)
    keys, queries = (rng.standard_normal((n, _TEST_DIM)) for n in (_TEST_ROWS, _TEST_QUERIES))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    queries *= SHRINK / np.linalg.norm(queries, axis=1, keepdims=True)
    truth = torch.from_numpy(keys @ queries.T)
    products = {kernel: _honest_product(kernel, queries, keys, truth) for kernel in CPU_KERNELS}
    best = {kernel: np.inf for kernel, product in products.items() if product is not None}
    for _ in range(_TEST_ROUNDS):  # in turns, so that other work on the machine hits all
        for kernel, seconds in best.items():
            product = products[kernel]
            if product is not None and not seconds > _HOPELESS * min(best.values()):
                best[kernel] = min(seconds, _seconds(product))
    return min(best, key=best.__getitem__)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _honest_product(
    kernel: Kernel, queries: npt.NDArray[np.float64], keys: npt.NDArray[np.float64], truth: torch.Tensor
) -> Callable[[], object] | None:
    """A product to be timed; None for a kernel that is less accurate than it promises."""
    (held_queries, query_loss), (held_keys, key_loss) = kernel.rounded(queries), kernel.rounded(keys)
    room = torch.empty(len(keys) * len(queries), device=kernel.device)
    scores = kernel.scores(held_queries, held_keys, room)
    if float((scores - truth).abs().max()) > kernel.error(keys.shape[1], query_loss, key_loss):
        return None
    return lambda: kernel.scores(held_queries, held_keys, room)
