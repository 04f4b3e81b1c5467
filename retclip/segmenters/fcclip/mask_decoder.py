"""Mask transformer decoder with masked attention (Mask2Former, section 3.2; FC-CLIP, section 3.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retclip.adapters.open_clip.pooling import mask_pool
from retclip.segmenters.layers.positions import sine_positions

LEVELS = 3


class Prediction(NamedTuple):
    """mask_logits (B, Q, H/4, W/4); class_vectors (B, Q, D) to be compared with text, any length."""

    mask_logits: Tensor
    class_vectors: Tensor


class Attention(nn.Module):
    """Multi-head attention with the key names of `nn.MultiheadAttention`; one mask serves all heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, Q, C), (B, K, C), (B, K, C) -> (B, Q, C); allowed (B, Q, K) bool, True where attention may go."""
        batch, _, width = query.shape
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, weight, bias).view(batch, -1, self.heads, width // self.heads).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if allowed is None else allowed[:, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class CrossAttentionLayer(nn.Module):
    """Queries read from one memory level; residual sum, then norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.multihead_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, content: Tensor, place: Tensor, memory: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """Content (B, Q, C) with place (Q, C); memory (B, K, C) with positions (K, C) in the keys only."""
        read = self.multihead_attn(content + place, memory + positions, memory, allowed)
        out: Tensor = self.norm(content + read)
        return out


class SelfAttentionLayer(nn.Module):
    """Queries read from each other; residual sum, then norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, content: Tensor, place: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)."""
        placed = content + place
        out: Tensor = self.norm(content + self.self_attn(placed, placed, content))
        return out


class FeedForwardLayer(nn.Module):
    """Two linear layers with ReLU; residual sum, then norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)
        for layer in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, content: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, C)."""
        out: Tensor = self.norm(content + self.linear2(F.relu(self.linear1(content))))
        return out


class Perceptron(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class MaskDecoder(nn.Module):
    """Learned queries become masks and class vectors. It knows no text: any vocabulary can be asked afterwards.

    Args:
        width: channels of queries, memories and mask features (they must agree: pooled mask features meet the queries).
        queries: number of masks proposed per image.
        dim: length of the class vectors, the text dimension.
        heads, feedforward, depth: of the layers.
    """

    def __init__(self, width: int, queries: int, dim: int, *, heads: int, feedforward: int, depth: int) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.transformer_self_attention_layers = nn.ModuleList(SelfAttentionLayer(width, heads) for _ in range(depth))
        self.transformer_cross_attention_layers = nn.ModuleList(CrossAttentionLayer(width, heads) for _ in range(depth))
        self.transformer_ffn_layers = nn.ModuleList(FeedForwardLayer(width, feedforward) for _ in range(depth))
        self.decoder_norm = nn.LayerNorm(width)
        self.query_feat = nn.Embedding(queries, width)
        self.query_embed = nn.Embedding(queries, width)
        self.level_embed = nn.Embedding(LEVELS, width)
        self.mask_embed = Perceptron(width, width, width)
        self._mask_pooling_proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.class_embed = Perceptron(width, width, dim)

    def forward(
        self, memories: Sequence[Tensor], mask_features: Tensor, *, every_layer: bool = False
    ) -> list[Prediction]:
        """Decode.

        Args:
            memories: (B, C, h, w) at strides 32, 16, 8; layer i reads memory i mod 3.
            mask_features: (B, C, H/4, W/4).
            every_layer: also predict before the first layer and after each (training needs them).

        Returns:
            The predictions in order of computing, the final one last; only that one unless `every_layer`.
        """
        levels = [self._placed(memory, index) for index, memory in enumerate(memories)]
        # Resizing is linear, so resized features give the resized mask logits without the full ones.
        guides = [F.interpolate(mask_features, m.shape[-2:], mode="bilinear", align_corners=False) for m in memories]
        content = self.query_feat.weight.expand(mask_features.shape[0], -1, -1)
        place = self.query_embed.weight
        predictions = []
        blocks = zip(
            self.transformer_cross_attention_layers,
            self.transformer_self_attention_layers,
            self.transformer_ffn_layers,
            strict=True,
        )
        for index, (cross_attention, self_attention, feedforward) in enumerate(blocks):
            if every_layer:
                predictions.append(self._predict(content, mask_features))
            memory, positions = levels[index % LEVELS]
            content = cross_attention(content, place, memory, positions, self._allowed(content, guides[index % LEVELS]))
            content = feedforward(self_attention(content, place))
        return [*predictions, self._predict(content, mask_features)]

    def _placed(self, memory: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Tokens (B, K, C) with the level's embedding, and their positions (K, C)."""
        _, channels, height, width = memory.shape
        tokens = memory.flatten(2).transpose(1, 2) + self.level_embed.weight[level]
        return tokens, sine_positions(height, width, channels, memory.device).flatten(1).T

    @torch.no_grad()
    def _allowed(self, content: Tensor, guide: Tensor) -> Tensor:
        """(B, Q, K): where the current mask is at least 0.5; a mask that is nowhere so may look everywhere."""
        logits = self.mask_embed(self.decoder_norm(content)) @ guide.flatten(2)
        allowed: Tensor = logits.float().sigmoid() >= 0.5
        return allowed | ~allowed.any(-1, keepdim=True)

    def _predict(self, content: Tensor, mask_features: Tensor) -> Prediction:
        query = self.decoder_norm(content)
        batch, _, height, width = mask_features.shape
        masks = (self.mask_embed(query) @ mask_features.flatten(2)).view(batch, -1, height, width)
        pooled = self._mask_pooling_proj(mask_pool(mask_features, masks))
        return Prediction(masks, self.class_embed(pooled + query))
