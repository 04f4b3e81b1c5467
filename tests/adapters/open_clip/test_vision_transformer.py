"""The vision transformer at its own size against open_clip, and at other sizes against a naive value path."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from retclip.adapters.open_clip.vision_transformer import TransformerClip, value_path
from tests.adapters.tiny_clip import VISION, tiny_clip


@pytest.fixture(params=[{}, {"ls_init_value": 0.3}, {"pool_type": "avg", "final_ln_after_pool": True}], ids=str)
def backbone(request):
    return TransformerClip(tiny_clip("vit", vision_cfg=VISION["vit"] | request.param))


@torch.no_grad()
def test_the_tokens_lead_to_open_clips_own_embedding(backbone):
    """At the native size the last block, finished as open_clip finishes it, gives `encode_image`."""
    visual, images = backbone.clip_model.visual, torch.randn(2, 3, 32, 32)
    pooled, _ = visual._pool(visual.transformer.resblocks[-1](backbone.tokens(images)))
    assert_close(pooled @ visual.proj, backbone.clip_model.encode_image(images), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 32), (16, 40), (8, 8)])
def test_features_are_the_values_of_the_last_block(backbone, size):
    """Recomputed patch by patch with the block's attention module on a sequence of one token, where nothing can mix."""
    visual, images = backbone.clip_model.visual, torch.randn(1, 3, *size)
    dense = backbone(images)
    assert dense.shape == (1, 16, size[0] // 8, size[1] // 8)
    block = visual.transformer.resblocks[-1]
    for index, token in enumerate(backbone.tokens(images)[0, 1:]):
        normed = block.ln_1(token)[None, None]
        value = block.ls_1(block.attn(normed, normed, normed, need_weights=False)[0][0, 0])
        expected = visual.ln_post(value) @ visual.proj
        row, column = divmod(index, size[1] // 8)
        assert_close(dense[0, :, row, column], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_values_do_not_mix_tokens_within_the_block(backbone):
    block, tokens = backbone.clip_model.visual.transformer.resblocks[-1], torch.randn(1, 5, 32)
    changed = tokens.clone()
    changed[0, 2] += 1
    same = (value_path(block, tokens) == value_path(block, changed)).all(-1)[0]
    assert same.tolist() == [True, True, False, True, True]


@torch.no_grad()
def test_other_sizes_use_the_position_table_resized_bicubically(backbone):
    """A network without blocks before the last shows the table itself."""
    visual = backbone.clip_model.visual
    visual.transformer.resblocks = visual.transformer.resblocks[-1:]
    images = torch.zeros(1, 3, 16, 56)
    table = visual.positional_embedding[1:].T.reshape(1, -1, 4, 4)
    resized = F.interpolate(table, (2, 7), mode="bicubic", antialias=False, align_corners=False)[0].flatten(1).T
    tokens = backbone.tokens(images)[0]
    assert_close(tokens[1:], visual.ln_pre(resized))
    assert_close(tokens[0], visual.ln_pre(visual.class_embedding + visual.positional_embedding[0]))
