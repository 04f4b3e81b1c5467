"""Overlapping binary masks as a partition: pixels that lie in exactly the same masks form one atom.

Merging and counting need only the atoms and their sizes. A photo of 300,000 pixels with 100 proposals has a few hundred
atoms, so that a setting can be tried in a millisecond instead of a second, with the same result to the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retclip.core.errors import require

_SEED = 20_240_117


@dataclass(frozen=True)
class Atoms:
    """The partition of one picture.

    Attributes:
        index: (H, W) int32 atom of every pixel.
        inside: (A, N) bool, the atom lies in mask n.
    """

    index: npt.NDArray[np.int32]
    inside: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        require(self.index.ndim == 2, "Atoms.index", "(H, W)", self.index.shape)
        most = int(self.index.max(initial=-1))
        require(most < len(self.inside), "Atoms.index", f"< {len(self.inside)}", most)

    def masks(self) -> npt.NDArray[np.bool_]:
        """(N, H, W) bool, the masks again."""
        return np.stack([column[self.index] for column in self.inside.T]) if self.inside.shape[1] else self._none()

    def _none(self) -> npt.NDArray[np.bool_]:
        return np.zeros((0, *self.index.shape), np.bool_)


def split_into_atoms(masks: npt.NDArray[np.bool_]) -> Atoms:
    """The coarsest partition of which every mask (N, H, W) bool is a union."""
    size = (masks.shape[1], masks.shape[2])
    # A sum of random 64-bit words names the set of masks over a pixel; two sets share a name once in 2^64 pairs.
    words = np.random.default_rng(_SEED).integers(0, 1 << 64, len(masks), dtype=np.uint64, endpoint=False)
    names = np.zeros(size, np.uint64)
    for word, mask in zip(words, masks, strict=True):
        names[mask] += word
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    inside = masks.reshape(len(masks), size[0] * size[1])[:, first].T
    return Atoms(index.reshape(size).astype(np.int32), np.ascontiguousarray(inside))
