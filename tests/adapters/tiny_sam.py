"""SAM and SAM 2 in miniature with random weights, written as the hub has them: 64 x 64 pixels in, 16 x 16 masks out."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn
from transformers import (
    Sam2HieraDetConfig,
    Sam2VideoConfig,
    Sam2VideoModel,
    Sam2VisionConfig,
    SamConfig,
    SamModel,
    SamVisionConfig,
)

SIDE = 64
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
_PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16}


def write_tiny_sam(folder: Path, seed: int) -> Path:
    """A folder as of `facebook/sam-vit-base`; predicted IoU is spread over about 0..1."""
    vision = SamVisionConfig(
        hidden_size=32,
        output_channels=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        window_size=3,
        global_attn_indexes=[1],
        num_pos_feats=16,
    )
    # The decoder's norms are segment-anything's; the library's own default, 1e-6, is not the original's.
    decoder = {**_DECODER, "layer_norm_eps": 1e-5}
    config = SamConfig(vision_config=vision, prompt_encoder_config=_PROMPTS, mask_decoder_config=decoder)
    model = SamModel(config)
    _randomise(model, seed)
    model.save_pretrained(folder)
    _write(folder / "preprocessor_config.json", {"image_mean": _MEAN, "image_std": _STD})
    return folder


def write_tiny_sam2(folder: Path, seed: int) -> Path:
    """A folder as of `facebook/sam2.1-hiera-tiny`: the video network, of which pictures need a part."""
    backbone = Sam2HieraDetConfig(
        hidden_size=16,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=[[SIDE // stride] * 2 for stride in (4, 8, 16)],
        fpn_hidden_size=32,
    )
    config = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config=_PROMPTS,
        mask_decoder_config=_DECODER,
        image_size=SIDE,
        memory_attention_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=16,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
    )
    model = Sam2VideoModel(config)
    _randomise(model, seed)
    model.save_pretrained(folder)
    processor = {"image_mean": _MEAN, "image_std": _STD}
    _write(folder / "processor_config.json", {"image_processor": processor, "processor_class": "Sam2VideoProcessor"})
    return folder


def original_sam() -> Sam:
    """segment-anything's own network of the size of `write_tiny_sam`."""
    return Sam(
        ImageEncoderViT(
            img_size=SIDE,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(embed_dim=32, image_embedding_size=(4, 4), input_image_size=(SIDE, SIDE), mask_in_chans=16),
        MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, num_heads=2, mlp_dim=64),
            iou_head_hidden_dim=32,
        ),
    )


def _randomise(model: nn.Module, seed: int) -> None:
    """Weights of such sizes that masks depend on picture and prompt: with the library's own they are all alike."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=random)
            if "norm" in name:
                tensor.copy_(0.1 * noise + float(name.endswith("weight")))
            elif any(part in name for part in ("point", "token", "positional")):
                tensor.copy_(noise)
            else:
                tensor.copy_(noise * (1.5 * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1))


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")
