"""Image and text encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.core.errors import require
from retclip.core.identity import FeatureSpace
from retclip.core.pooling import mask_coverage, pool


@dataclass(frozen=True)
class DenseFeatures:
    """Features of one image before pooling.

    Attributes:
        values: (C, h, w) float on the encoder's device.
        extent: (height, width), in feature cells, that the image really covers; the rest of the map is padding, so
            extent <= (h, w) and may be fractional.
    """

    values: Tensor
    extent: tuple[float, float]

    def __post_init__(self) -> None:
        require(self.values.ndim == 3, "DenseFeatures.values", "(C, h, w)", tuple(self.values.shape))
        height, width = self.values.shape[1:]
        require(
            0 < self.extent[0] <= height and 0 < self.extent[1] <= width,
            "DenseFeatures.extent",
            f"within ({height}, {width}) cells",
            self.extent,
        )

    def pooled(self, masks: Tensor) -> Tensor:
        """Mean features under masks (N, H, W), bool or [0, 1], at any resolution of the image, by coverage: (N, C)."""
        grid = (self.values.shape[1], self.values.shape[2])
        return pool(self.values, mask_coverage(masks.to(self.values.device), grid, self.extent))


class DenseEncoder(Protocol):
    """An image encoder with a spatial feature map; it need not have a text tower."""

    @property
    def space(self) -> FeatureSpace:
        """What makes this encoder's vectors comparable."""
        ...

    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        """RGB images (H, W, 3) of any sizes -> one feature map each."""
        ...

    def embed(self, features: DenseFeatures, masks: Tensor) -> Tensor:
        """Pool features under masks (N, H, W) bool, at any resolution of the image -> (N, D), not normalised."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A text tower that shares its space with a dense encoder."""

    @property
    def space(self) -> FeatureSpace:
        """The feature space of the image side it belongs to."""
        ...

    @property
    def logit_scale(self) -> float:
        """Learned temperature of image-text cosine, already exponentiated and clamped to 100."""
        ...

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Class names -> (T, D) unit vectors, prompt templates averaged."""
        ...


def embed_regions(encoder: DenseEncoder, features: DenseFeatures, masks: Tensor) -> Tensor:
    """Unit key vectors of regions: masks (N, H, W) bool, at any resolution of the image -> (N, D) float32.

    The one place where masks meet features, shared by building and asking, so that both sides pool alike. A region
    without usable features (all zero, or not finite) has the zero vector.
    """
    return unit_keys(encoder.embed(features, masks))


def unit_keys(embedded: Tensor) -> Tensor:
    """Embedded regions (N, D) -> unit vectors, float32; a row that is zero or not finite becomes the zero vector."""
    keys = torch.nn.functional.normalize(embedded.float(), dim=1)
    return torch.where(keys.isfinite().all(dim=1, keepdim=True), keys, 0.0)
