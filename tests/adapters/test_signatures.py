"""Telling tensors and sizes of the catalogue, against the networks that the libraries build."""

from __future__ import annotations

import open_clip
import pytest
import timm
import torch
from segment_anything import sam_model_registry
from torch import nn
from transformers import (
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam2VisionConfig,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SwinConfig,
)

from retclip.core.weight_files import has_signature
from retclip.presets.model_cards import ModelCard, model_cards
from retclip.segmenters.fcclip.variants import build_fcclip

SAM = {
    "base": (768, 12, 12, [2, 5, 8, 11]),
    "large": (1024, 24, 16, [5, 11, 17, 23]),
    "huge": (1280, 32, 16, [7, 15, 23, 31]),
}
SAM2_WIDTH = {"tiny": 96, "small": 96, "base-plus": 112, "large": 144}


def network(card: ModelCard) -> nn.Module:
    """The architecture of a card, on the meta device."""
    name = card.model.rsplit("-", 1)[-1]
    if card.library == "open_clip":
        config = open_clip.get_model_config(card.model)
        config.pop("custom_text", None)
        return open_clip.CLIP(**config)
    if card.library == "timm":
        return timm.create_model(card.model)
    if card.library == "fcclip":
        return build_fcclip(card.model)
    if card.library == "segment_anything":
        return sam_model_registry[card.model]()
    if card.library == "sam":
        width, depth, heads, spread = SAM[name]
        vision = SamVisionConfig(
            hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, global_attn_indexes=spread
        )
        return SamModel(SamConfig(vision_config=vision.to_dict()))
    if card.library == "sam2":
        name = card.model.split("hiera-")[1]
        width = SAM2_WIDTH[name]
        trunk = Sam2HieraDetConfig(hidden_size=width, embed_dim_per_stage=[width, 2 * width, 4 * width, 8 * width])
        vision = Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=[8 * width, 4 * width, 2 * width, width])
        return Sam2Model(Sam2Config(vision_config=vision))
    swin = {"tiny": SwinConfig(out_indices=[2, 3, 4]), "base": SwinConfig(embed_dim=128, out_indices=[2, 3, 4])}[name]
    return GroundingDinoForObjectDetection(GroundingDinoConfig(backbone_config=swin))


# The tiny suite is in the package: tests/presets/test_tiny.py loads it.
CARDS = [card for card in model_cards() if card.signature and "part of the package" not in card.note]


@pytest.mark.slow
@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_signatures_and_sizes_are_those_of_the_library(card: ModelCard) -> None:
    with torch.device("meta"):
        tensors = network(card).state_dict()
    assert has_signature({name: tuple(tensor.shape) for name, tensor in tensors.items()}, card.signature)
    if card.library in ("open_clip", "timm", "fcclip", "segment_anything", "sam"):
        size = sum(tensor.numel() for tensor in tensors.values()) * 4 / 1e6
        assert card.megabytes == pytest.approx(size, rel=0.03, abs=1)
