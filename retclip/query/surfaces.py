"""Where proposals lie: the pixels of a picture, or its atoms. Merging asks both the same questions and hears the same.

A cell below is a pixel of a (H, W) array or an entry of an (A,) array.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.core.masks import MaskSet
from retclip.query.atoms import AtomOutline, boxes
from retclip.query.touching import Integers, borders


@dataclass(frozen=True)
class Ownership:
    """Who owns which cell, among K proposals.

    Attributes:
        owner: cells, int32 proposal that won the cell, -1 where it is none or its probability is below one half.
        owned, full: (K,) pixels won (those below one half too), and pixels of the whole mask.
    """

    owner: npt.NDArray[np.int32]
    owned: npt.NDArray[np.int64]
    full: npt.NDArray[np.int64]


class Surface(Protocol):
    """Cells that proposals cover."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an array of cells."""
        ...

    def select(self, rows: Tensor) -> Self:
        """The same cells with the proposals at `rows` (n,) int64."""
        ...

    def strongest(self, best: Tensor) -> Ownership:
        """Every cell goes to the proposal with the highest score (K,) x mask probability, the first of equals."""
        ...

    def region(self, row: int) -> npt.NDArray[np.bool_]:
        """Cells of a proposal with probability of at least one half."""
        ...

    def count(self, where: npt.NDArray[np.bool_]) -> int:
        """Pixels of the marked cells."""
        ...

    def areas(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """(count,) pixels of every value of an array of cells."""
        ...

    def boxes(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """(count, 4) x0, y0, x1, y1 (half-open, pixels) of every value that occurs."""
        ...

    def borders(self, values: Integers) -> tuple[Integers, Integers]:
        """Values on both sides of every border between cells of different values."""
        ...


class PixelSurface:
    """The pixels of a picture, for masks of any kind."""

    def __init__(self, masks: MaskSet) -> None:
        self._masks = masks

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self._masks.image_size

    def select(self, rows: Tensor) -> PixelSurface:
        """See `Surface`."""
        return PixelSurface(self._masks.select(rows))

    def strongest(self, best: Tensor) -> Ownership:
        """See `Surface`."""
        count = len(best)
        owners = []
        owned = torch.zeros(count, dtype=torch.long, device=best.device)
        full = torch.zeros_like(owned)
        for top, bottom in self._masks.bands():
            probability = self._masks.band(top, bottom).to(best.device)
            owner = (best[:, None, None] * probability).argmax(dim=0)
            # A pixel that no mask touches has argmax 0 by accident; FC-CLIP counts it as owned, and so do we.
            owned += torch.bincount(owner.flatten(), minlength=count)
            full += (probability >= 0.5).sum(dim=(1, 2))
            inside = probability.gather(0, owner[None])[0] >= 0.5
            owners.append(torch.where(inside, owner, -1).to(torch.int32).cpu())
        return Ownership(torch.cat(owners).numpy(), owned.cpu().numpy(), full.cpu().numpy())

    def region(self, row: int) -> npt.NDArray[np.bool_]:
        """See `Surface`."""
        region: npt.NDArray[np.bool_] = self._masks.region(row).cpu().numpy()
        return region

    def count(self, where: npt.NDArray[np.bool_]) -> int:
        """See `Surface`."""
        return int(np.count_nonzero(where))

    def areas(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """See `Surface`."""
        return np.bincount(values.ravel(), minlength=count)

    def boxes(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """See `Surface`."""
        return boxes(values, count)

    def borders(self, values: Integers) -> tuple[Integers, Integers]:
        """See `Surface`."""
        return borders(values)


class AtomSurface:
    """The atoms of binary masks."""

    def __init__(self, outline: AtomOutline) -> None:
        self._outline = outline

    @property
    def shape(self) -> tuple[int, ...]:
        """(A,)."""
        return self._outline.size.shape

    def select(self, rows: Tensor) -> AtomSurface:
        """See `Surface`."""
        return AtomSurface(replace(self._outline, inside=self._outline.inside[:, rows.cpu().numpy()]))

    def strongest(self, best: Tensor) -> Ownership:
        """See `Surface`."""
        inside = self._outline.inside
        owner = np.where(inside, best.cpu().numpy(), 0).argmax(axis=1)
        owned = self.areas(owner, len(best))
        covered = inside[np.arange(len(inside)), owner]
        return Ownership(np.where(covered, owner, -1).astype(np.int32), owned, self._outline.size @ inside)

    def region(self, row: int) -> npt.NDArray[np.bool_]:
        """See `Surface`."""
        return self._outline.inside[:, row]

    def count(self, where: npt.NDArray[np.bool_]) -> int:
        """See `Surface`."""
        return int(self._outline.size[where].sum())

    def areas(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """See `Surface`."""
        # bincount sums in float64, which holds pixels exactly.
        return np.bincount(values, self._outline.size, count).astype(np.int64)

    def boxes(self, values: Integers, count: int) -> npt.NDArray[np.int64]:
        """See `Surface`."""
        low = np.full((count, 2), np.iinfo(np.int64).max)
        high = np.zeros((count, 2), np.int64)
        np.minimum.at(low, values, self._outline.box[:, :2])
        np.maximum.at(high, values, self._outline.box[:, 2:])
        return np.concatenate([low, high], axis=1)

    def borders(self, values: Integers) -> tuple[Integers, Integers]:
        """See `Surface`."""
        first, second = values[self._outline.touching.T]
        return first, second
