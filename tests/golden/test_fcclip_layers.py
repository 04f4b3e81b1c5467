"""Pieces of FC-CLIP against the official code's numbers; tolerances as the goldens' README states them."""

import json

import pytest
import torch
from torch.testing import assert_close

from retclip.adapters.open_clip.backbones import Pyramid
from retclip.adapters.open_clip.pooling import mask_pool
from retclip.segmenters.fcclip.mask_decoder import MaskDecoder
from retclip.segmenters.fcclip.pixel_decoder import PixelDecoder
from retclip.segmenters.fcclip.variants import ResNetTower, TextTower, build_clip
from retclip.segmenters.layers.classification import TextRows, class_logits
from retclip.segmenters.layers.deformable_attention import (
    MultiScaleDeformableAttention,
    sample_values,
    sample_values_by_gather,
    sample_values_by_grid,
)
from retclip.segmenters.layers.positions import sine_positions

pytestmark = pytest.mark.golden

FEATURES = {"atol": 1e-5, "rtol": 0}
LOGITS = {"atol": 2e-4, "rtol": 0}


def under(arrays, prefix):
    """Entries below a prefix, with the prefix removed."""
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def cases(arrays, prefix):
    """Case names `<prefix>.<case>` that occur."""
    found = sorted(under(arrays, f"{prefix}."))
    assert found
    return found


@pytest.mark.parametrize("sample", [sample_values, sample_values_by_grid, sample_values_by_gather])
def test_sampling_of_every_implementation(goldens, sample):
    core = under(goldens.arrays("ms_deform_attn.safetensors"), "core.")
    sizes = [tuple(size) for size in core["spatial_shapes"].tolist()]
    with torch.no_grad():
        sampled = sample(core["value"], sizes, core["sampling_locations"], core["attention_weights"])
    assert_close(sampled, core["output"], **FEATURES)


def test_deformable_attention_layer(goldens):
    name = "ms_deform_attn.safetensors"
    case, sizes_of = under(goldens.arrays(name), "module."), goldens.metadata(name)
    layer = MultiScaleDeformableAttention(
        case["query"].shape[-1], int(sizes_of["n_levels"]), int(sizes_of["n_heads"]), int(sizes_of["n_points"])
    )
    layer.load_state_dict(under(case, "w."))
    sizes = [tuple(size) for size in case["spatial_shapes"].tolist()]
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            out = layer(case["query"], case["input_flatten"], case["reference_points"], sizes)
        assert_close(out.detach(), case["output"], **FEATURES)


def test_position_encoding(goldens):
    arrays = goldens.arrays("position_encoding.safetensors")
    for case in cases(arrays, "out"):
        channels, height, width = arrays[f"num_pos_feats_h_w.{case}"].tolist()
        assert_close(sine_positions(height, width, 2 * channels)[None], arrays[f"out.{case}"], **FEATURES)


def test_mask_pooling(goldens):
    arrays = goldens.arrays("mask_pooling.safetensors")
    for case in cases(arrays, "out"):
        assert_close(mask_pool(arrays[f"x.{case}"], arrays[f"mask.{case}"]), arrays[f"out.{case}"], **FEATURES)


def test_classification_logits(goldens):
    arrays = goldens.arrays("classification_logits.safetensors")
    for case in cases(arrays, "out"):
        names = (*arrays[f"num_templates.{case}"].tolist(), 1)
        text = TextRows(arrays[f"text_with_void.{case}"], names)
        logits = class_logits(arrays[f"x.{case}"], text, arrays[f"logit_scale_param.{case}"])
        assert_close(logits, arrays[f"out.{case}"], **LOGITS)


def test_resnet_backbone_and_masked_attention_pool(goldens):
    name = "resnet_backbone_attnpool.safetensors"
    arrays, sizes = goldens.arrays(name), goldens.metadata(name)
    tower = ResNetTower(
        tuple(json.loads(sizes["layers"])), int(sizes["width"]), int(sizes["image_size"]), int(sizes["heads"])
    )
    backbone = build_clip(tower, TextTower(8, 1, 1, quick_gelu=True), int(sizes["output_dim"]))
    backbone.clip_model.visual.load_state_dict(under(arrays, "w."), strict=True)
    with torch.no_grad():
        taps = backbone.pyramid(arrays["in.image"])
        pooled = backbone.embed(taps.res5, arrays["in.masks"] > 0)
        with_empty = backbone.embed(taps.res5, arrays["in.masks_query1_empty"] > 0)
    for tap in Pyramid._fields:
        assert_close(getattr(taps, tap), arrays[f"out.{tap}"], **FEATURES)
    assert_close(taps.res5, arrays["out.clip_vis_dense"], **FEATURES)
    assert_close(pooled, arrays["out.pooled"], **FEATURES)
    filled = (arrays["in.masks_query1_empty"] > 0).flatten(2).any(-1)
    assert_close(with_empty[filled], arrays["out.pooled_query1_empty"][filled], **FEATURES)
    bias = backbone.clip_model.visual.attnpool.c_proj.bias
    assert_close(with_empty[~filled], bias.expand_as(with_empty[~filled]), **FEATURES)


def test_pixel_decoder(goldens):
    name = "pixel_decoder.safetensors"
    arrays, sizes = goldens.arrays(name), goldens.metadata(name)
    taps = Pyramid(*(arrays[f"in.{tap}"] for tap in Pyramid._fields))
    decoder = PixelDecoder(
        tuple(tap.shape[1] for tap in taps),
        int(sizes["hidden"]),
        heads=int(sizes["nheads"]),
        points=int(sizes["points"]),
        feedforward=int(sizes["ffn"]),
        depth=int(sizes["enc_layers"]),
    )
    decoder.load_state_dict(under(arrays, "w."))
    with torch.no_grad():
        decoded = decoder(taps)
    assert_close(decoded.mask_features, arrays["out.mask_features"], **FEATURES)
    for case in cases(arrays, "out.multi_scale"):
        assert_close(decoded.memories[int(case)], arrays[f"out.multi_scale.{case}"], **FEATURES)


def test_mask_decoder(goldens):
    name = "transformer_decoder.safetensors"
    arrays, sizes = goldens.arrays(name), goldens.metadata(name)
    decoder = MaskDecoder(
        int(sizes["hidden"]),
        int(sizes["queries"]),
        int(sizes["clip_embedding_dim"]),
        heads=int(sizes["nheads"]),
        feedforward=int(sizes["ffn"]),
        depth=int(sizes["layers"]),
    )
    decoder.load_state_dict(under(arrays, "w."))
    text = TextRows(arrays["in.text_classifier_with_void"], (*arrays["in.num_templates"].tolist(), 1))
    memories = [arrays[f"in.x.{case}"] for case in cases(arrays, "in.x")]
    with torch.no_grad():
        predictions = decoder(memories, arrays["in.mask_features"], every_layer=True)
        (final,) = decoder(memories, arrays["in.mask_features"])
    prefixes = [f"out.aux.{layer}." for layer in range(int(sizes["layers"]))] + ["out."]
    for prefix, prediction in zip(prefixes, predictions, strict=True):
        assert_close(prediction.mask_logits, arrays[f"{prefix}pred_masks"], **LOGITS)
        logits = class_logits(prediction.class_vectors, text, decoder.logit_scale)
        assert_close(logits.detach(), arrays[f"{prefix}pred_logits"], **LOGITS)
    assert torch.equal(final.mask_logits, predictions[-1].mask_logits)
