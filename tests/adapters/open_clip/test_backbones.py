from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from retclip.adapters.open_clip.backbones import STRIDES
from retclip.segmenters.fcclip.variants import ConvNeXtTower, ResNetTower, TextTower, build_clip

TEXT = TextTower(8, 1, 1, quick_gelu=False, context_length=9, vocabulary_size=50)
TOWERS = [ConvNeXtTower((1, 1, 1, 1), (8, 16, 24, 32)), ResNetTower((1, 1, 1, 1), 8, 64, 4)]


@pytest.fixture(params=TOWERS, ids=["convnext", "resnet"])
def tower(request):
    return request.param


def test_taps_have_their_strides_and_channels(tower):
    backbone = build_clip(tower, TEXT, 12)
    taps = backbone.pyramid(torch.randn(2, 3, 64, 96))
    for tap, stride, channels in zip(taps, STRIDES, tower.channels, strict=True):
        assert tap.shape == (2, channels, 64 // stride, 96 // stride)


def test_the_dense_map_is_what_clip_itself_pools(tower):
    """A mask over everything must give CLIP's own embedding wherever the pooling rules agree: the ConvNeXt's."""
    backbone = build_clip(tower, TEXT, 12)
    images = torch.randn(1, 3, 64, 64)
    dense = backbone(images)
    pooled = backbone.embed(dense, torch.ones(1, 1, 2, 2))[:, 0]
    assert pooled.shape == (1, 12)
    if isinstance(tower, ConvNeXtTower):
        assert_close(pooled, backbone.clip_model.visual(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_text_is_open_clips_own_whatever_the_lengths(tower, quick_gelu):
    backbone = build_clip(tower, replace(TEXT, quick_gelu=quick_gelu), 12)
    tokens = torch.tensor([[48, 3, 5, 49, 0, 0, 0, 0, 0], [48, 7, 8, 9, 3, 49, 0, 0, 0], [48, 49, 0, 0, 0, 0, 0, 0, 0]])
    full = torch.tensor([[48, 1, 2, 3, 4, 5, 6, 7, 49]])
    for texts in (tokens, full, torch.cat([tokens, full])):
        assert_close(backbone.encode_text(texts), backbone.clip_model.encode_text(texts), atol=1e-5, rtol=1e-4)


def test_everything_is_frozen_and_stays_in_evaluation_mode(tower):
    backbone = build_clip(tower, TEXT, 12).train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.clip_model.modules())
