"""FC-CLIP's frozen CLIP behind the house's ports: a dense encoder that pools as the release does, and a text tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from retclip.core.identity import FeatureSpace
from retclip.core.pooling import mask_coverage
from retclip.core.weights import tensors_sha256
from retclip.ports.encoders import DenseFeatures
from retclip.segmenters.fcclip.preprocessing import DIVISOR, PIXEL_MEAN, PIXEL_STD
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter
from retclip.segmenters.fcclip.variants import TextTower

# Name of the pooling rule inside a FeatureSpace: change it whenever the numbers change.
SIGNED_BILINEAR = "signed-bilinear/1"
# A cell that a mask half covers is outside: rounding of the weights must not decide it.
_TIE = 1e-5


class FCCLIPEncoder:
    """Image and text tower of the CLIP inside an FC-CLIP; its keys are the vectors that FC-CLIP compares with texts.

    Binary masks take the way that mask logits take at inference: bilinear to the resized picture, padding, bilinear to
    stride 32, strictly positive cells count. They enter as mask - 0.5: zeros and ones would grow by up to a cell. A
    mask that no cell's centre shows keeps the cell it covers most.

    Args:
        segmenter: the network with its settings.
        name: of the variant.
        text: sizes of the text tower.
    """

    def __init__(self, segmenter: FCCLIPSegmenter, name: str, text: TextTower) -> None:
        self._segmenter = segmenter
        clip = segmenter.model.backbone.clip_model
        resolution = segmenter.settings.resolution
        self._space = FeatureSpace(
            encoder=f"fcclip/{name}",
            weights_sha256=tensors_sha256(clip.visual.state_dict()),
            dim=segmenter.model.void_embedding.weight.shape[1],
            layers=("res5",),
            stride=DIVISOR,
            short_side=resolution.short_side,
            long_side=resolution.long_side,
            mean=_on_unit_scale(PIXEL_MEAN),
            std=_on_unit_scale(PIXEL_STD),
            activation="quick_gelu" if text.quick_gelu else "",
            pooling=SIGNED_BILINEAR,
        )

    @property
    def space(self) -> FeatureSpace:
        """What makes this encoder's vectors comparable: the frozen image tower, never the trained heads."""
        return self._space

    @property
    def logit_scale(self) -> float:
        """CLIP's temperature, exponentiated and clamped."""
        return self._segmenter.model.backbone.logit_scale

    @torch.inference_mode()
    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        """RGB (H, W, 3) pictures -> CLIP's map at stride 32 of the padded picture, not normalised."""
        found: dict[int, DenseFeatures] = {}
        for indices, batch in self._segmenter.batches(images):
            dense = self._segmenter.model.backbone(self._segmenter.normalised([pixels for pixels, _ in batch]))
            for index, values, (_, frame) in zip(indices, dense, batch, strict=True):
                found[index] = DenseFeatures(values, (frame.content[0] / DIVISOR, frame.content[1] / DIVISOR))
        return [found[index] for index in range(len(images))]

    @torch.inference_mode()
    def embed(self, features: DenseFeatures, masks: Tensor) -> Tensor:
        """Masks (N, H, W) bool -> (N, D) in the text space, not normalised."""
        cells = mask_cells(masks.to(features.values.device), features)
        return self._segmenter.model.backbone.embed(features.values[None], cells[None])[0]

    @torch.inference_mode()
    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Class names -> (T, D) unit rows, prompts averaged."""
        return self._segmenter.names.rows(names)


def mask_cells(masks: Tensor, features: DenseFeatures) -> Tensor:
    """Masks (N, H, W) bool of a picture -> (N, h, w) bool, the feature cells they stand for; at least one each."""
    grid = (features.values.shape[1], features.values.shape[2])
    rows, columns = (
        _sampling(pixels, round(extent * DIVISOR), cells, masks.device)
        for pixels, extent, cells in zip(masks.shape[1:], features.extent, grid, strict=True)
    )
    coverage = mask_coverage(masks, grid, features.extent)
    inside = (
        torch.stack([rows @ mask.float() @ columns.T for mask in masks]) > 0.5 + _TIE if len(masks) else coverage > 0
    )
    flat = coverage.flatten(1)
    best = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, flat.argmax(dim=1, keepdim=True), True).view_as(inside)
    return torch.where(inside.flatten(1).any(dim=1)[:, None, None], inside, best)


def _sampling(pixels: int, content: int, cells: int, device: torch.device) -> Tensor:
    """(cells, pixels): weights of picture pixels in every feature cell along one axis.

    Bilinear from the picture to its resized content, padding, and bilinear to stride 32: linear steps, one matrix.
    """
    identity = torch.eye(pixels, device=device)[None]
    resized = F.interpolate(identity, content, mode="linear", align_corners=False)
    padded = F.pad(resized, (0, cells * DIVISOR - content))
    return F.interpolate(padded, cells, mode="linear", align_corners=False)[0].T


def _on_unit_scale(values: tuple[float, float, float]) -> tuple[float, float, float]:
    return values[0] / 255, values[1] / 255, values[2] / 255
