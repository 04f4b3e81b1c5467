"""CLIP's vision transformer at any size, with features that keep their place.

Dense features are the values of the last block: norm, value projection, output projection, and nothing else of it. The
attention that would mix the patches is left out (MaskCLIP, Zhou et al., ECCV 2022), and so are the block's
residual and MLP: MaskCLIP's released ViT keeps both, ClearCLIP (Lan et al., ECCV 2024) traced the noise of
dense CLIP features to exactly these two. The final norm and the projection into the text space follow as for the class
token. Position tables are resized bicubically without antialiasing, as in DINO and the dense CLIPs built like it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor

from retclip.adapters.open_clip.backbones import ClipBackbone
from retclip.adapters.open_clip.pooling import resized_positions, weighted_mean


class TransformerClip(ClipBackbone):
    """Vision transformer of open_clip with ordinary blocks; its dense map lies in the text space already."""

    layer = "last-values"

    @property
    def stride(self) -> int:
        """See `ClipBackbone.stride`: the patch size."""
        return int(self.clip_model.visual.patch_size[0])

    def forward(self, images: Tensor) -> Tensor:
        """See `ClipBackbone.forward`."""
        visual = self.clip_model.visual
        values = value_path(visual.transformer.resblocks[-1], self.tokens(images)[:, 1:])
        features: Tensor = visual.ln_post(values) @ visual.proj
        height, width = (side // self.stride for side in images.shape[2:])
        return features.transpose(1, 2).reshape(len(images), -1, height, width)

    def tokens(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> input of the last block, (B, 1 + h * w, width), the class token first."""
        visual = self.clip_model.visual
        patches = visual.conv1(images)
        size = (int(patches.shape[2]), int(patches.shape[3]))
        table = visual.positional_embedding
        positions = resized_positions(table[1:], tuple(visual.grid_size), size, "bicubic")
        first = visual.class_embedding + table[0]
        x: Tensor = torch.cat([first.expand(len(images), 1, -1), patches.flatten(2).transpose(1, 2) + positions], dim=1)
        x = visual.ln_pre(x)
        for block in visual.transformer.resblocks[:-1]:
            x = block(x)
        return x

    def embed(self, dense: Tensor, weights: Tensor) -> Tensor:
        """See `ClipBackbone.embed`; a mask without weight gives zeros."""
        return weighted_mean(dense, weights)


def value_path(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """What a block's attention adds to tokens (B, N, W) if each attends to itself alone: (B, N, W)."""
    attention = block.attn
    weight, bias = (part.chunk(3)[2] for part in (attention.in_proj_weight, attention.in_proj_bias))
    added: Tensor = block.ls_1(attention.out_proj(F.linear(block.ln_1(x), weight, bias)))
    return added
