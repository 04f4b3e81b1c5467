"""Frozen convolutional CLIP as a dense backbone: four taps, and mask-pooled vectors in the text space."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor, nn

from retclip.segmenters.layers.pooling import mask_pool, masked_attention_pool, resize_masks

STRIDES = (4, 8, 16, 32)


class Pyramid(NamedTuple):
    """Feature maps (B, C_i, H / stride, W / stride) at strides 4, 8, 16, 32; `res5` is also CLIP's dense map."""

    res2: Tensor
    res3: Tensor
    res4: Tensor
    res5: Tensor


class ClipBackbone(nn.Module):
    """A CLIP with a convolutional image tower, frozen and always in evaluation mode.

    Args:
        clip_model: open_clip model; its state-dict keys stand under `clip_model.`.
    """

    def __init__(self, clip_model: CLIP) -> None:
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: batch norms keep their statistics and no path is dropped."""
        super().train(mode)
        self.clip_model.eval()
        return self

    @property
    def log_scale(self) -> Tensor:
        """CLIP's own temperature, scalar, before the exponential."""
        scale: Tensor = self.clip_model.logit_scale
        return scale

    @abstractmethod
    def forward(self, images: Tensor) -> Pyramid:
        """Normalised images (B, 3, H, W), H and W multiples of 32 -> the four taps."""

    @abstractmethod
    def embed(self, dense: Tensor, masks: Tensor) -> Tensor:
        """Dense map (B, C, h, w) and mask logits (B, Q, any size) -> (B, Q, D) in the text space, not normalised."""

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (T, 77) -> (T, D), not normalised: open_clip's `encode_text` on no more tokens than count.

        Attention is causal and the feature is read at the end token, so what follows the last end token is never seen.
        Class prompts are a fifth of the context long.
        """
        clip = self.clip_model
        end = tokens.argmax(-1)
        length = int(end.max()) + 1
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
        features: Tensor = x[torch.arange(len(x), device=x.device), end] @ clip.text_projection
        return features


def _laid_out(images: Tensor) -> Tensor:
    """The memory format that convolutions like: channels last on a GPU; on a CPU it was measured no faster."""
    return images.contiguous(memory_format=torch.channels_last if images.is_cuda else torch.contiguous_format)


class ConvNeXtClip(ClipBackbone):
    """ConvNeXt tower (timm trunk, MLP head): pooled raw features pass norm and head afterwards."""

    def forward(self, images: Tensor) -> Pyramid:
        """See `ClipBackbone.forward`."""
        trunk = self.clip_model.visual.trunk
        x = trunk.stem(_laid_out(images))
        taps = []
        for stage in trunk.stages:
            x = stage(x)
            taps.append(x)
        return Pyramid(*taps)

    def embed(self, dense: Tensor, masks: Tensor) -> Tensor:
        """See `ClipBackbone.embed`; an empty mask pools to zeros before the norm."""
        visual = self.clip_model.visual
        norm = visual.trunk.head.norm
        pooled = F.layer_norm(mask_pool(dense, masks), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        embedded: Tensor = visual.head(pooled)
        return embedded


class ResNetClip(ClipBackbone):
    """CLIP's modified ResNet: attention pooling with one masked query per mask."""

    def forward(self, images: Tensor) -> Pyramid:
        """See `ClipBackbone.forward`."""
        visual = self.clip_model.visual
        x = visual.stem(_laid_out(images))
        taps = []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
            taps.append(x)
        return Pyramid(*taps)

    def embed(self, dense: Tensor, masks: Tensor) -> Tensor:
        """See `ClipBackbone.embed`; an empty mask gives the bias of the output projection."""
        masks = resize_masks(masks, (dense.shape[2], dense.shape[3]))
        return masked_attention_pool(self.clip_model.visual.attnpool, dense, masks)
