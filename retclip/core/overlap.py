"""Which of several masks are the same region twice."""

from __future__ import annotations

import torch
from torch import Tensor

from retclip.core.errors import require

# Cells of all masks that are compared at a time, as float32: 64 MB, whatever the number of masks.
_MOST_VALUES = 16_000_000


def distinct(masks: Tensor, most_iou: float) -> Tensor:
    """Leave out masks that nearly repeat an earlier one that is kept; the order of the masks is their rank.

    Args:
        masks: (N, h, w) bool. An empty mask repeats nothing.
        most_iou: two masks whose intersection over union is above this are one region.

    Returns:
        (n,) int64 rows that are kept, ascending, on the device of the masks.
    """
    require(masks.ndim == 3 and masks.dtype == torch.bool, "masks", "(N, h, w) bool", (masks.shape, masks.dtype))
    common = _intersections(masks.flatten(1))
    areas = common.diagonal()
    repeats = (common > most_iou * (areas[:, None] + areas - common)).cpu()
    kept: list[int] = []
    dropped = torch.zeros(len(masks), dtype=torch.bool)
    for row in range(len(masks)):
        if not dropped[row]:
            kept.append(row)
            dropped |= repeats[row]
    return torch.tensor(kept, dtype=torch.int64, device=masks.device)


def _intersections(flat: Tensor) -> Tensor:
    """(N, cells) bool -> (N, N) float64 numbers of common cells, exact."""
    common = torch.zeros(len(flat), len(flat), dtype=torch.float64, device=flat.device)
    # Sums of up to 2^24 ones are exact in float32.
    step = min(1 << 24, max(1, _MOST_VALUES // max(1, len(flat))))
    for start in range(0, flat.shape[1], step):
        part = flat[:, start : start + step].float()
        common += part @ part.T
    return common
