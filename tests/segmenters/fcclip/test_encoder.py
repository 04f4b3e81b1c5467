"""FC-CLIP's CLIP as the encoder that builds databases."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.core.pooling import mask_coverage
from retclip.ports.encoders import DenseFeatures, embed_regions
from retclip.segmenters.fcclip.encoder import FCCLIPEncoder, mask_cells
from retclip.segmenters.fcclip.preprocessing import padded_size
from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter
from retclip.segmenters.fcclip.variants import VARIANTS, build_fcclip
from retclip.segmenters.layers.classification import class_logits


@pytest.fixture
def encoder(segmenter):
    return FCCLIPEncoder(segmenter, "tiny", VARIANTS["tiny"].text)


def blank(content):
    """An empty map for a picture of a resized size."""
    height, width = padded_size([content])
    return DenseFeatures(torch.zeros(1, height // 32, width // 32), (content[0] / 32, content[1] / 32))


def resized_literally(masks, content):
    """The way of mask logits, step by step: signed, to the resized picture, padded with outside, to stride 32."""
    height, width = padded_size([content])
    signed = F.interpolate(masks[None].float() - 0.5, content, mode="bilinear", align_corners=False)
    padded = F.pad(signed, (0, width - content[1], 0, height - content[0]), value=-0.5)
    return F.interpolate(padded, (height // 32, width // 32), mode="bilinear", align_corners=False)[0]


@settings(max_examples=40)
@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.tuples(st.integers(33, 150), st.integers(33, 150)),
    st.integers(0, 99),
)
def test_masks_take_the_way_of_mask_logits(size, content, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(3, 1, 4, 4, generator=generator)
    masks = F.interpolate(coarse, size, mode="bilinear")[:, 0] > 0.5
    expected, cells = resized_literally(masks, content), mask_cells(masks, blank(content))
    for row in range(len(masks)):
        if (expected[row] > 1e-4).any():
            clear = expected[row].abs() > 1e-4  # on the border itself rounding decides
            assert torch.equal(cells[row][clear], expected[row][clear] > 0)


def test_a_mask_that_no_cell_shows_keeps_the_cell_it_covers_most():
    masks = torch.zeros(2, 64, 96, dtype=torch.bool)
    masks[0, 60:64, 30:34], masks[1, 0, 95] = True, True
    cells = mask_cells(masks, blank((64, 96)))
    assert cells.flatten(1).sum(1).tolist() == [1, 1]
    coverage = mask_coverage(masks, (2, 3), (2.0, 3.0))
    assert [int(c.flatten().nonzero()) for c in cells] == coverage.flatten(1).argmax(1).tolist()


def test_a_half_covered_cell_is_outside_on_every_machine():
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[0, :, :16] = True  # the centre of the first cell lies exactly on the border
    masks[0, 40:, 40:] = True
    assert mask_cells(masks, blank((64, 64)))[0].tolist() == [[False, False], [False, True]]


def test_no_mask_gives_no_cells():
    assert mask_cells(torch.zeros(0, 20, 30, dtype=torch.bool), blank((64, 96))).shape == (0, 2, 3)


def test_padding_never_counts():
    content = (70, 100)
    cells = mask_cells(torch.ones(1, 35, 50, dtype=torch.bool), blank(content))[0]
    assert cells.tolist() == (resized_literally(torch.ones(1, 35, 50), content)[0] > 0).tolist()
    assert not cells[2].any()  # only six of its 32 pixel rows are picture


def test_keys_are_what_clip_compares_with_texts(encoder, segmenter, pictures, vocabulary):
    """The key of a mask is the vector of FC-CLIP's own out-of-vocabulary head for that mask."""
    picture = pictures[0]
    (features,) = encoder.encode_images([picture])
    (found,) = segmenter.passes([picture], vocabulary)
    assert_close(features.values, found.dense)
    mask = torch.zeros(1, *picture.shape[:2], dtype=torch.bool)
    mask[0, :, 20:] = True
    key = embed_regions(encoder, features, mask)
    signed = mask_cells(mask, features)[None].float() - 0.5
    own, valid = segmenter.model.embed(found.dense[None], signed)
    assert valid.all()
    assert_close(key, F.normalize(own[0], dim=1))
    texts = encoder.encode_names([name for category in vocabulary for name in category.names])
    cosine = (encoder.logit_scale * key @ texts.T).split([len(c.names) for c in vocabulary], dim=1)
    logits = class_logits(own[0], segmenter.text_rows(vocabulary), segmenter.model.backbone.log_scale)
    assert_close(torch.cat([part.amax(1, keepdim=True) for part in cosine], 1), logits, atol=1e-4, rtol=0)


def test_pictures_come_back_in_their_order(encoder, pictures):
    together = encoder.encode_images(pictures)
    for picture, features in zip(pictures, together, strict=True):
        (alone,) = encoder.encode_images([picture])
        assert_close(alone.values, features.values)
        assert alone.extent == features.extent


def test_resnet_keys_come_from_attention_pooling(settings, pictures, small_resnet):
    model = build_fcclip(small_resnet)
    segmenter = FCCLIPSegmenter(model, settings)
    encoder = FCCLIPEncoder(segmenter, "small-resnet", small_resnet.text)
    (features,) = encoder.encode_images(pictures[:1])
    left = torch.zeros(2, 48, 64, dtype=torch.bool)
    left[0, :, :32], left[1, :, 32:] = True, True
    keys = encoder.embed(features, left)
    assert keys.shape == (2, encoder.space.dim)
    assert not torch.allclose(keys[0], keys[1])
    assert_close(keys, model.backbone.embed(features.values[None], mask_cells(left, features)[None])[0])


def test_the_space_names_the_frozen_tower_and_nothing_trained(tiny, settings):
    space = FCCLIPEncoder(FCCLIPSegmenter(tiny, settings), "tiny", VARIANTS["tiny"].text).space
    assert (space.stride, space.short_side, space.long_side, space.pooling) == (32, 96, 160, "signed-bilinear/1")
    assert np.allclose(space.std, (0.26862954, 0.26130258, 0.27577711))

    def changed(key):
        model = build_fcclip("tiny")
        weights = {name: value.clone() for name, value in tiny.state_dict().items()}
        weights[key] += 1
        model.load_state_dict(weights)
        return FCCLIPEncoder(FCCLIPSegmenter(model, settings), "tiny", VARIANTS["tiny"].text).space

    assert changed("void_embedding.weight") == space
    assert changed("backbone.clip_model.visual.trunk.stem.0.bias") != space
