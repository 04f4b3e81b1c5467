"""Frozen CLIPs as dense encoders: one feature map per image, mask-pooled vectors in the text space, the text tower."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from retclip.adapters.open_clip.pooling import COVERAGE_ATTENTION, attention_pool, weighted_mean
from retclip.core.pooling import COVERAGE_MEAN

STRIDES = (4, 8, 16, 32)
MAX_LOGIT_SCALE = 100.0  # CLIP, section 2.5


class Pyramid(NamedTuple):
    """Feature maps (B, C_i, H / stride, W / stride) at strides 4, 8, 16, 32; `res5` is also CLIP's dense map."""

    res2: Tensor
    res3: Tensor
    res4: Tensor
    res5: Tensor


class ClipBackbone(nn.Module):
    """A CLIP, frozen and always in evaluation mode.

    Args:
        clip_model: open_clip model; its state-dict keys stand under `clip_model.`.

    Attributes:
        layer: name of the dense map inside a FeatureSpace: change it whenever the numbers change.
        coverage_pooling: name, inside a FeatureSpace, of `embed` with the coverage of masks as weights.
    """

    layer: ClassVar[str]
    coverage_pooling: ClassVar[str] = COVERAGE_MEAN

    def __init__(self, clip_model: CLIP) -> None:
        super().__init__()
        self.clip_model = clip_model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: batch norms keep their statistics and no path is dropped."""
        super().train(mode)
        self.clip_model.eval()
        return self

    @property
    @abstractmethod
    def stride(self) -> int:
        """Input pixels per cell of the dense map; inputs are multiples of it."""

    @property
    def log_scale(self) -> Tensor:
        """CLIP's own temperature before the exponential, one number."""
        scale: Tensor = self.clip_model.logit_scale
        return scale

    @property
    def logit_scale(self) -> float:
        """CLIP's own temperature, exponentiated and clamped."""
        return float(self.log_scale.exp().clamp(max=MAX_LOGIT_SCALE))

    @property
    def activation(self) -> str:
        """`quick_gelu` for OpenAI's x * sigmoid(1.702 x), empty for the exact GELU; no weight tells which."""
        return "quick_gelu" if isinstance(self.clip_model.transformer.resblocks[0].mlp.gelu, QuickGELU) else ""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W), H and W multiples of the stride -> dense map (B, C, H/stride, W/stride)."""

    @abstractmethod
    def embed(self, dense: Tensor, weights: Tensor) -> Tensor:
        """Dense map (B, C, h, w), weights of its cells (B, Q, h, w), bool or >= 0 -> (B, Q, D) in the text space.

        The vectors are not normalised.
        """

    @torch.no_grad()
    def encode_text(self, tokens: Tensor) -> Tensor:
        """Token ids (T, 77) -> (T, D), not normalised."""
        return text_features(self.clip_model, tokens)


def text_features(clip: CLIP, tokens: Tensor) -> Tensor:
    """Token ids (T, 77) -> (T, D), not normalised: open_clip's `encode_text` on no more tokens than count.

    Attention is causal and the feature is read at the end token, so what follows the last end token is never seen.
    Class prompts are a fifth of the context long.
    """
    features: Tensor
    if clip.attn_mask is None or clip.text_pool_type != "argmax" or isinstance(clip.text_projection, nn.Linear):
        features = clip.encode_text(tokens)
        return features
    end = tokens.argmax(-1)
    length = int(end.max()) + 1
    x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
    x = clip.ln_final(clip.transformer(x, attn_mask=clip.attn_mask[:length, :length]))
    features = x[torch.arange(len(x), device=x.device), end] @ clip.text_projection
    return features


def restore_causal_mask(clip: CLIP) -> None:
    """Fill the one buffer outside every state dict, which a network built on the meta device lacks."""
    if clip.attn_mask is not None:
        clip.attn_mask = torch.full((clip.context_length, clip.context_length), float("-inf")).triu_(1)


class ConvolutionalClip(ClipBackbone):
    """A CLIP with a convolutional image tower: its last tap is the dense map."""

    layer = "res5"

    @property
    def stride(self) -> int:
        """See `ClipBackbone.stride`."""
        return STRIDES[-1]

    def forward(self, images: Tensor) -> Tensor:
        """See `ClipBackbone.forward`."""
        return self.pyramid(images).res5

    @abstractmethod
    def pyramid(self, images: Tensor) -> Pyramid:
        """Normalised images (B, 3, H, W), H and W multiples of 32 -> the four taps."""


def _laid_out(images: Tensor) -> Tensor:
    """The memory format that convolutions like: channels last on a GPU; on a CPU it was measured no faster."""
    return images.contiguous(memory_format=torch.channels_last if images.is_cuda else torch.contiguous_format)


class ConvNeXtClip(ConvolutionalClip):
    """ConvNeXt tower (timm trunk, projection head): pooled raw features pass norm and head afterwards."""

    def pyramid(self, images: Tensor) -> Pyramid:
        """See `ConvolutionalClip.pyramid`."""
        trunk = self.clip_model.visual.trunk
        x = trunk.stem(_laid_out(images))
        taps = []
        for stage in trunk.stages:
            x = stage(x)
            taps.append(x)
        return Pyramid(*taps)

    def embed(self, dense: Tensor, weights: Tensor) -> Tensor:
        """See `ClipBackbone.embed`; a mask without weight pools to zeros before the norm."""
        visual = self.clip_model.visual
        norm = visual.trunk.head.norm
        pooled = F.layer_norm(weighted_mean(dense, weights), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        embedded: Tensor = visual.head(pooled)
        return embedded


class ResNetClip(ConvolutionalClip):
    """CLIP's modified ResNet: attention pooling with one weighted query per mask."""

    coverage_pooling = COVERAGE_ATTENTION

    def pyramid(self, images: Tensor) -> Pyramid:
        """See `ConvolutionalClip.pyramid`."""
        visual = self.clip_model.visual
        x = visual.stem(_laid_out(images))
        taps = []
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
            taps.append(x)
        return Pyramid(*taps)

    def embed(self, dense: Tensor, weights: Tensor) -> Tensor:
        """See `ClipBackbone.embed`; a mask without weight gives the bias of the output projection."""
        return attention_pool(self.clip_model.visual.attnpool, dense, weights)
