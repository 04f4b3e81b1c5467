"""A plain CLIP behind the house's ports: dense features, pooled by coverage, and the text tower of the same space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from retclip.adapters.open_clip.backbones import ClipBackbone
from retclip.adapters.open_clip.prompts import NameRows
from retclip.adapters.preprocessing import Preprocessing, dense_features
from retclip.core.errors import require
from retclip.core.identity import FeatureSpace
from retclip.core.pooling import mask_coverage
from retclip.ports.encoders import DenseFeatures


class OpenClipEncoder:
    """Image and text tower of a CLIP; masks weigh feature cells by the share of each that they cover.

    One rule for every tower: the weights enter a mean (ConvNeXt before norm and head, ViT after them), or CLIP's own
    attention pooling (ResNet). A mask counts however small it is. Pictures are scaled by Pillow's bicubic filter, as in
    CLIP's own preprocessing, but never cropped or squashed.

    Args:
        backbone: on its device.
        names: text rows of its text tower.
        space: what it was made of; size, mean, std and stride decide the input.
    """

    def __init__(self, backbone: ClipBackbone, names: NameRows, space: FeatureSpace) -> None:
        self._backbone, self._names, self._space = backbone, names, space
        self._preprocess = Preprocessing(
            space.short_side, space.long_side, space.mean, space.std, space.stride, Image.Resampling.BICUBIC
        )

    @property
    def space(self) -> FeatureSpace:
        """What makes this encoder's vectors comparable."""
        return self._space

    @property
    def logit_scale(self) -> float:
        """CLIP's temperature, exponentiated and clamped."""
        return self._backbone.logit_scale

    @torch.inference_mode()
    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        """RGB (H, W, 3) images -> maps of the network's own stride; images of one padded size share a pass."""
        inputs = [self._preprocess(image) for image in images]
        return dense_features(inputs, self._backbone, self._space.stride, self._backbone.log_scale.device)

    @torch.inference_mode()
    def embed(self, features: DenseFeatures, masks: Tensor) -> Tensor:
        """Masks (N, H, W) bool -> (N, D) in the text space, not normalised. Raises ValueError for an empty mask."""
        grid = (features.values.shape[1], features.values.shape[2])
        coverage = mask_coverage(masks.to(features.values.device), grid, features.extent)
        require(bool(coverage.flatten(1).any(dim=1).all()), "masks", "at least one pixel each", "an empty mask")
        return self._backbone.embed(features.values[None], coverage[None])[0]

    @torch.inference_mode()
    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Class names -> (T, D) unit rows, prompts averaged."""
        return self._names.rows(names)
