"""Pixel decoder: deformable attention over three levels, one top-down step to stride 4 (Mask2Former, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retclip.adapters.open_clip.backbones import Pyramid
from retclip.segmenters.layers.deformable_attention import MultiScaleDeformableAttention, Size
from retclip.segmenters.layers.positions import sine_positions

GROUPS = 32
LEVELS = 3


class DecodedPixels(NamedTuple):
    """mask_features (B, C, H/4, W/4); memories (B, C, h, w) at strides 32, 16, 8."""

    mask_features: Tensor
    memories: tuple[Tensor, ...]


class NormedConv(nn.Conv2d):
    """Convolution without bias, then group norm; the norm's keys stand beside the convolution's weight."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(GROUPS, outputs)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, outputs, H, W)."""
        out: Tensor = self.norm(super().forward(input))
        return out


class DeformableLayer(nn.Module):
    """Deformable self-attention and feed-forward network, each followed by a residual sum and a norm."""

    def __init__(self, width: int, heads: int, points: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(width, LEVELS, heads, points)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, positions: Tensor, reference: Tensor, sizes: list[Size]) -> Tensor:
        """Tokens (B, S, C) -> (B, S, C); positions (S, C) enter the queries only."""
        tokens = self.norm1(tokens + self.self_attn(tokens + positions, tokens, reference, sizes))
        out: Tensor = self.norm2(tokens + self.linear2(F.relu(self.linear1(tokens))))
        return out


class DeformableLayers(nn.Module):
    """The stack alone; it exists for the released key names."""

    def __init__(self, layers: Iterable[DeformableLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class DeformableEncoder(nn.Module):
    """A stack of deformable layers over the flattened levels, told apart by a learned level embedding."""

    def __init__(self, width: int, heads: int, points: int, feedforward: int, depth: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.randn(LEVELS, width))
        self.encoder = DeformableLayers(DeformableLayer(width, heads, points, feedforward) for _ in range(depth))

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, ...]:
        """Three maps (B, C, h, w) -> the same three, having seen each other."""
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        device, width = levels[0].device, levels[0].shape[1]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        positions = torch.cat(
            [
                sine_positions(h, w, width, device).flatten(1).T + embedding
                for (h, w), embedding in zip(sizes, self.level_embed, strict=True)
            ]
        )
        reference = torch.cat([_cell_centres(h, w, device) for h, w in sizes])
        for layer in self.encoder.layers:
            tokens = layer(tokens, positions, reference, sizes)
        parts = torch.split(tokens, [h * w for h, w in sizes], dim=1)
        batch = tokens.shape[0]
        return tuple(part.transpose(1, 2).view(batch, width, h, w) for part, (h, w) in zip(parts, sizes, strict=True))


def _cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """(height * width, 2) as (x, y) in [0, 1], row by row."""
    y = (torch.arange(height, device=device) + 0.5) / height
    x = (torch.arange(width, device=device) + 0.5) / width
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(0, 1)


class PixelDecoder(nn.Module):
    """Backbone taps -> mask features and memories. Key names are those of the released checkpoints.

    Args:
        channels: of res2, res3, res4, res5.
        width: of all outputs (256).
        heads, points, feedforward, depth: of the deformable encoder.
    """

    def __init__(
        self, channels: tuple[int, int, int, int], width: int, *, heads: int, points: int, feedforward: int, depth: int
    ) -> None:
        super().__init__()
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1), nn.GroupNorm(GROUPS, width)) for inputs in channels[:0:-1]
        )
        self.transformer = DeformableEncoder(width, heads, points, feedforward, depth)
        self.mask_features = nn.Conv2d(width, width, 1)
        self.adapter_1 = NormedConv(channels[0], width, 1)
        self.layer_1 = NormedConv(width, width, 3)

    def forward(self, taps: Pyramid) -> DecodedPixels:
        """Taps of the backbone -> features; always in float32, autocast or not (sampling positions need it)."""
        with torch.autocast(taps.res2.device.type, enabled=False):
            coarse_first = [tap.float() for tap in (taps.res5, taps.res4, taps.res3)]
            projected = [layer(tap) for layer, tap in zip(self.input_proj, coarse_first, strict=True)]
            memories = self.transformer(projected)
            lateral = self.adapter_1(taps.res2.float())
            upward = F.interpolate(memories[-1], lateral.shape[-2:], mode="bilinear", align_corners=False)
            return DecodedPixels(self.mask_features(F.relu(self.layer_1(lateral + upward))), memories)
