"""The network: frozen CLIP, pixel decoder, mask decoder, void embedding."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from retclip.adapters.open_clip.backbones import ConvolutionalClip
from retclip.adapters.open_clip.pooling import resize_masks
from retclip.segmenters.fcclip.mask_decoder import MaskDecoder, Prediction
from retclip.segmenters.fcclip.pixel_decoder import PixelDecoder
from retclip.segmenters.layers.classification import TextRows, class_logits

VOID_WEIGHT = 0.1


class MaskHead(nn.Module):
    """The trained part, under the names of the released checkpoints."""

    def __init__(self, pixel_decoder: PixelDecoder, predictor: MaskDecoder) -> None:
        super().__init__()
        self.pixel_decoder = pixel_decoder
        self.predictor = predictor


class ClassWeights(nn.Module):
    """Weights of the classification loss, stored in checkpoints: `empty_weight` (C + 1,), ones and 0.1 for void."""

    empty_weight: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        weight = torch.ones(classes + 1)
        weight[-1] = VOID_WEIGHT
        self.register_buffer("empty_weight", weight)


class FCCLIPOutput(NamedTuple):
    """What one image pass yields; no text has entered it.

    dense: (B, C, H/32, W/32) CLIP features, not normalised. predictions: the final one last.
    """

    dense: Tensor
    predictions: list[Prediction]


class FCCLIP(nn.Module):
    """FC-CLIP from its parts. State-dict keys are those of the released checkpoints.

    Args:
        backbone: frozen CLIP.
        pixel_decoder, predictor: trained heads.
        dim: of the text space, length of the void embedding.
        training_classes: classes of the training set, without void.
    """

    def __init__(
        self,
        backbone: ConvolutionalClip,
        pixel_decoder: PixelDecoder,
        predictor: MaskDecoder,
        dim: int,
        training_classes: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = MaskHead(pixel_decoder, predictor)
        self.criterion = ClassWeights(training_classes)
        self.void_embedding = nn.Embedding(1, dim)

    def forward(self, images: Tensor, *, every_layer: bool = False) -> FCCLIPOutput:
        """One pass over normalised images (B, 3, H, W), H and W multiples of 32 (`preprocessing.normalised_batch`)."""
        with torch.no_grad():
            taps = self.backbone.pyramid(images)
        pixels = self.sem_seg_head.pixel_decoder(taps)
        predictions = self.sem_seg_head.predictor(pixels.memories, pixels.mask_features, every_layer=every_layer)
        return FCCLIPOutput(taps.res5, predictions)

    def in_vocabulary_logits(self, class_vectors: Tensor, text: TextRows) -> Tensor:
        """Class vectors (..., Q, D) against C classes -> (..., Q, C + 1), void last."""
        return class_logits(
            class_vectors, text.with_void(self.void_embedding.weight), self.sem_seg_head.predictor.logit_scale
        )

    def out_of_vocabulary_logits(self, embeddings: Tensor, text: TextRows) -> Tensor:
        """Frozen CLIP's answer for pooled embeddings (..., Q, D) -> (..., Q, C), no void."""
        return class_logits(embeddings, text, self.backbone.log_scale)

    def embed(self, dense: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the dense map with mask logits (B, Q, any size).

        Returns:
            (B, Q, D) embeddings in the text space, not normalised, and (B, Q) bool, masks with a positive cell at
            stride 32.
        """
        inside = resize_masks(mask_logits, (dense.shape[2], dense.shape[3])) > 0
        return self.backbone.embed(dense, inside), inside.flatten(2).any(-1)
