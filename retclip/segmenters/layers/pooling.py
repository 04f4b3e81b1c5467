"""From dense features and masks to one vector per mask."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor


def resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
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
    inside = (resize_masks(masks.detach(), (features.shape[2], features.shape[3])) > 0).to(features.dtype)
    # The official count + 1e-8 is the same number in float32, but 0 / 0 in half precision and in optimised ONNX graphs.
    share = inside / inside.sum((-1, -2), keepdim=True).clamp(min=1)
    return torch.einsum("bqhw,bchw->bqc", share, features)


def masked_attention_pool(pool: AttentionPool2d, features: Tensor, masks: Tensor) -> Tensor:
    """CLIP's attention pooling restricted to the positive cells of each mask (FC-CLIP, appendix).

    The query is the mean over ALL cells, the same for every mask; unlike CLIP's own pooling the mean is not among the
    keys. An empty mask attends to nothing: its vector is the bias of the output projection.

    Args:
        pool: attention pool of a CLIP ResNet; its position table is resized to the feature map.
        features: (B, C, H, W).
        masks: (B, Q, H, W) logits at the features' size; strictly positive cells count.

    Returns:
        (B, Q, D).
    """
    batch, channels, height, width = features.shape
    tokens = features.flatten(2).transpose(1, 2)
    side = round((pool.positional_embedding.shape[0] - 1) ** 0.5)
    table = pool.positional_embedding[1:].T.reshape(1, channels, side, side)
    table = F.interpolate(table, (height, width), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    keys = tokens + table
    query = tokens.mean(1, keepdim=True) + pool.positional_embedding[0]
    inside = masks.flatten(2) > 0
    heads = pool.num_heads

    def split(x: Tensor) -> Tensor:
        return x.view(batch, -1, heads, channels // heads).transpose(1, 2)

    attended = F.scaled_dot_product_attention(
        split(pool.q_proj(query)).expand(-1, -1, masks.shape[1], -1),
        split(pool.k_proj(keys)),
        split(pool.v_proj(keys)),
        attn_mask=inside[:, None],
    )
    # A fully blocked row is NaN in some versions and kernels and zero in others; zero is what we promise.
    attended = torch.where(inside.any(-1)[:, None, :, None], attended, 0.0)
    out: Tensor = pool.c_proj(attended.transpose(1, 2).flatten(2))
    return out
