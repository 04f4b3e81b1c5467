"""From dense features and masks to one vector per mask."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor

Size = tuple[int, int]

# Name of `attention_pool` by coverage inside a FeatureSpace: change it whenever the numbers change.
COVERAGE_ATTENTION = "coverage-attention/1"


def resize_masks(masks: Tensor, size: Size) -> Tensor:
    """Mask logits (B, Q, h, w) resized bilinearly to size (height, width); unchanged where the sizes agree."""
    if tuple(masks.shape[-2:]) == size:
        return masks
    return F.interpolate(masks, size, mode="bilinear", align_corners=False)


def mask_pool(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of the features where a mask is positive; an empty mask gives zeros. No gradient reaches the masks.

    Args:
        features: (B, C, H, W).
        masks: (B, Q, h, w) logits, resized to (H, W); strictly positive cells count.

    Returns:
        (B, Q, C).
    """
    return weighted_mean(features, resize_masks(masks.detach(), (features.shape[2], features.shape[3])) > 0)


def weighted_mean(features: Tensor, weights: Tensor) -> Tensor:
    """Mean of the features (B, C, H, W) by weights (B, Q, H, W), bool or >= 0 -> (B, Q, C); zeros where all weigh 0."""
    weights = weights.to(features.dtype)
    total = weights.sum((-1, -2), keepdim=True)
    # A small constant in the denominator would be 0 / 0 in half precision and in optimised ONNX graphs.
    share = weights / torch.where(total > 0, total, 1.0)
    return torch.einsum("bqhw,bchw->bqc", share, features)


def resized_positions(table: Tensor, grid: Size, size: Size, mode: Literal["bilinear", "bicubic"]) -> Tensor:
    """Position table (g_h * g_w, C) of a grid -> (h * w, C) of another; the table itself where the grids agree."""
    if grid == size:
        return table
    planes = table.T.reshape(1, -1, *grid)
    return F.interpolate(planes, size, mode=mode, align_corners=False)[0].flatten(1).T


def attention_pool(pool: AttentionPool2d, features: Tensor, weights: Tensor) -> Tensor:
    """CLIP's attention pooling in which every cell counts by a mask's weight (FC-CLIP, appendix).

    A cell's share is proportional to weight * exp(query . key): weights of 0 and 1 are FC-CLIP's masked attention. The
    query is the mean over ALL cells, the same for every mask; unlike CLIP's own pooling the mean is not among the keys.
    A mask without weight attends to nothing: its vector is the bias of the output projection.

    Args:
        pool: attention pool of a CLIP ResNet; its position table is resized to the feature map.
        features: (B, C, H, W).
        weights: (B, Q, H, W), bool or >= 0.

    Returns:
        (B, Q, D).
    """
    batch, channels, height, width = features.shape
    tokens = features.flatten(2).transpose(1, 2)
    side = round((pool.positional_embedding.shape[0] - 1) ** 0.5)
    keys = tokens + resized_positions(pool.positional_embedding[1:], (side, side), (height, width), "bilinear")
    query = tokens.mean(1, keepdim=True) + pool.positional_embedding[0]
    heads = pool.num_heads

    def split(x: Tensor) -> Tensor:
        return x.view(batch, -1, heads, channels // heads).transpose(1, 2)

    queries = split(pool.q_proj(query)).expand(-1, -1, weights.shape[1], -1)
    bias = weights.flatten(2).float().log().to(queries.dtype)
    attended = F.scaled_dot_product_attention(
        queries, split(pool.k_proj(keys)), split(pool.v_proj(keys)), attn_mask=bias[:, None]
    )
    # A fully blocked row is NaN in some versions and kernels and zero in others; zero is what we promise.
    attended = torch.where((weights.flatten(2) > 0).any(-1)[:, None, :, None], attended, 0.0)
    out: Tensor = pool.c_proj(attended.transpose(1, 2).flatten(2))
    return out
