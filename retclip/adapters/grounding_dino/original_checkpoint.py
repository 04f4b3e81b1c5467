"""Checkpoints as the authors released them (`groundingdino_swint_ogc.pth`), under the names that transformers uses.

Key names: IDEA-Research/GroundingDINO, models/GroundingDINO; the names of the files at IDEA-Research/grounding-dino-*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor
from transformers import BertConfig, GroundingDinoConfig, SwinConfig

# The two released networks: Swin-T trained on ImageNet-1k at 224 px, Swin-B on ImageNet-22k at 384 px.
_BACKBONES = MappingProxyType(
    {
        "grounding-dino-tiny": {
            "embed_dim": 96,
            "depths": [2, 2, 6, 2],
            "num_heads": [3, 6, 12, 24],
            "window_size": 7,
            "image_size": 224,
        },
        "grounding-dino-base": {
            "embed_dim": 128,
            "depths": [2, 2, 18, 2],
            "num_heads": [4, 8, 16, 32],
            "window_size": 12,
            "image_size": 384,
        },
    }
)
ORIGINAL_MODELS = tuple(_BACKBONES)

# Kept for training (label_enc), computed anew (indices), or without use in detection (BERT's pooler).
_UNUSED = re.compile(r"label_enc\.weight|bert\.embeddings\.position_ids|bert\.pooler\..*|.*\.relative_position_index")

_BLOCK = r"backbone\.0\.layers\.(\d+)\.blocks\.(\d+)"
_SWIN = "model.backbone.conv_encoder.model"
_SWIN_BLOCK = rf"{_SWIN}.encoder.layers.\1.blocks.\2"
_ENCODER = r"transformer\.encoder"
_DECODER = r"transformer\.decoder\.layers\.(\d+)"

_RENAMES: tuple[tuple[str, str], ...] = (
    # Image backbone. Its stages are counted from 0 there, from 1 here.
    (r"backbone\.0\.patch_embed\.proj", rf"{_SWIN}.embeddings.patch_embeddings.projection"),
    (r"backbone\.0\.patch_embed\.norm", rf"{_SWIN}.embeddings.norm"),
    (rf"{_BLOCK}\.norm1", rf"{_SWIN_BLOCK}.layernorm_before"),
    (rf"{_BLOCK}\.norm2", rf"{_SWIN_BLOCK}.layernorm_after"),
    (rf"{_BLOCK}\.attn\.relative_position_bias_table", rf"{_SWIN_BLOCK}.attention.self.relative_position_bias_table"),
    (rf"{_BLOCK}\.attn\.proj", rf"{_SWIN_BLOCK}.attention.output.dense"),
    (rf"{_BLOCK}\.attn\.(query|key|value)", rf"{_SWIN_BLOCK}.attention.self.\3"),
    (rf"{_BLOCK}\.mlp\.fc1", rf"{_SWIN_BLOCK}.intermediate.dense"),
    (rf"{_BLOCK}\.mlp\.fc2", rf"{_SWIN_BLOCK}.output.dense"),
    (r"backbone\.0\.layers\.(\d+)\.downsample", rf"{_SWIN}.encoder.layers.\1.downsample"),
    (r"backbone\.0\.norm1", rf"{_SWIN}.hidden_states_norms.stage2"),
    (r"backbone\.0\.norm2", rf"{_SWIN}.hidden_states_norms.stage3"),
    (r"backbone\.0\.norm3", rf"{_SWIN}.hidden_states_norms.stage4"),
    # Encoder: fusion of picture and text, then text alone, then picture alone.
    (rf"{_ENCODER}\.fusion_layers\.(\d+)\.gamma_v", r"model.encoder.layers.\1.fusion_layer.vision_param"),
    (rf"{_ENCODER}\.fusion_layers\.(\d+)\.gamma_l", r"model.encoder.layers.\1.fusion_layer.text_param"),
    (rf"{_ENCODER}\.fusion_layers\.(\d+)\.layer_norm_v", r"model.encoder.layers.\1.fusion_layer.layer_norm_vision"),
    (rf"{_ENCODER}\.fusion_layers\.(\d+)\.layer_norm_l", r"model.encoder.layers.\1.fusion_layer.layer_norm_text"),
    (
        rf"{_ENCODER}\.fusion_layers\.(\d+)\.attn\.((?:values_|out_)?)v_proj",
        r"model.encoder.layers.\1.fusion_layer.attn.\2vision_proj",
    ),
    (
        rf"{_ENCODER}\.fusion_layers\.(\d+)\.attn\.((?:values_|out_)?)l_proj",
        r"model.encoder.layers.\1.fusion_layer.attn.\2text_proj",
    ),
    (rf"{_ENCODER}\.text_layers\.(\d+)\.self_attn", r"model.encoder.layers.\1.text_enhancer_layer.self_attn"),
    (rf"{_ENCODER}\.text_layers\.(\d+)\.linear", r"model.encoder.layers.\1.text_enhancer_layer.fc"),
    (rf"{_ENCODER}\.text_layers\.(\d+)\.norm1", r"model.encoder.layers.\1.text_enhancer_layer.layer_norm_before"),
    (rf"{_ENCODER}\.text_layers\.(\d+)\.norm2", r"model.encoder.layers.\1.text_enhancer_layer.layer_norm_after"),
    (rf"{_ENCODER}\.layers\.(\d+)\.self_attn", r"model.encoder.layers.\1.deformable_layer.self_attn"),
    (rf"{_ENCODER}\.layers\.(\d+)\.linear", r"model.encoder.layers.\1.deformable_layer.fc"),
    (rf"{_ENCODER}\.layers\.(\d+)\.norm1", r"model.encoder.layers.\1.deformable_layer.self_attn_layer_norm"),
    (rf"{_ENCODER}\.layers\.(\d+)\.norm2", r"model.encoder.layers.\1.deformable_layer.final_layer_norm"),
    # Decoder: queries among themselves, with the text, with the picture.
    (rf"{_DECODER}\.self_attn", r"model.decoder.layers.\1.self_attn"),
    (rf"{_DECODER}\.norm2", r"model.decoder.layers.\1.self_attn_layer_norm"),
    (rf"{_DECODER}\.ca_text", r"model.decoder.layers.\1.encoder_attn_text"),
    (rf"{_DECODER}\.catext_norm", r"model.decoder.layers.\1.encoder_attn_text_layer_norm"),
    (rf"{_DECODER}\.cross_attn", r"model.decoder.layers.\1.encoder_attn"),
    (rf"{_DECODER}\.norm1", r"model.decoder.layers.\1.encoder_attn_layer_norm"),
    (rf"{_DECODER}\.linear", r"model.decoder.layers.\1.fc"),
    (rf"{_DECODER}\.norm3", r"model.decoder.layers.\1.final_layer_norm"),
    (r"transformer\.decoder\.ref_point_head", "model.decoder.reference_points_head"),
    (r"transformer\.decoder\.norm", "model.decoder.layer_norm"),
    (r"transformer\.decoder\.bbox_embed", "model.decoder.bbox_embed"),
    # What lies around them. `bbox_embed` at the top has one name in both.
    (r"transformer\.enc_out_bbox_embed", "model.encoder_output_bbox_embed"),
    (r"transformer\.enc_output", "model.enc_output"),
    (r"transformer\.tgt_embed", "model.query_position_embeddings"),
    (r"transformer\.level_embed", "model.level_embed"),
    (r"bert\.", "model.text_backbone."),
    (r"feat_map", "model.text_projection"),
    (r"input_proj", "model.input_proj_vision"),
)

# One matrix for queries, keys and values there, three here.
_JOINT_PROJECTION = re.compile(r"(.*\.(?:attn|self_attn|ca_text)\.)(?:qkv\.|in_proj_)(weight|bias)")


def original_config(model: str) -> GroundingDinoConfig:
    """Sizes of the released network `model`, one of ORIGINAL_MODELS."""
    backbone = SwinConfig(out_indices=[2, 3, 4], **_BACKBONES[model])
    return GroundingDinoConfig(backbone_config=backbone, text_config=BertConfig())


def renamed_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of transformers' files; names that are not the original's stay as they are."""
    split: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix("module.")
        if _UNUSED.fullmatch(name):
            continue
        joint = _JOINT_PROJECTION.fullmatch(name)
        if joint is None or tensor.ndim == 0:
            split[name] = tensor
            continue
        for part, values in zip(("query", "key", "value"), tensor.tensor_split(3), strict=True):
            split[f"{joint[1]}{part}.{joint[2]}"] = values
    return {_renamed(name): tensor for name, tensor in split.items()}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        match = re.match(pattern, name)
        if match:
            return match.expand(replacement) + name[match.end() :]
    return name
