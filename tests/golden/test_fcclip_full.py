"""Released sizes: key tables, and whole networks whose weights follow from their keys."""

import gc
import math
import zlib
from pathlib import Path

import open_clip
import pytest
import torch
from torch.testing import assert_close

from retclip.core.masks import Frame
from retclip.core.vocabulary import Category, Vocabulary, seen_classes
from retclip.segmenters.fcclip.checkpoint import assign_weights
from retclip.segmenters.fcclip.ensemble import EnsembleWeights, geometric_ensemble
from retclip.segmenters.fcclip.inference import PanopticThresholds, panoptic_map, semantic_scores
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.text import encode_names, split_names
from retclip.segmenters.fcclip.variants import build_fcclip

pytestmark = pytest.mark.golden

TABLES = {"convnext-large": "state_dict_convnext_large.txt", "rn50x64": "state_dict_rn50x64.txt"}
BUFFER, TRAINED, FROZEN = "B", "P", "F"
ISOLATED = 4e-4  # one pixel that crosses a threshold moves a logit by about this much; see the goldens' README


def key_table(name):
    """key -> (shape, dtype, kind) of a released state dict."""
    lines = (Path(__file__).parent / "fcclip" / TABLES[name]).read_text().splitlines()
    rows = (line.split("\t") for line in lines if line and not line.startswith("#"))
    return {key: (shape, dtype, kind) for key, shape, dtype, kind in rows}


@pytest.mark.parametrize("name", TABLES)
def test_every_released_key_with_its_shape_and_role(name):
    with torch.device("meta"):
        model = build_fcclip(name)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = dict(model.named_parameters())

    def kind(key):
        return BUFFER if key not in parameters else TRAINED if key in trained else FROZEN

    ours = {
        key: (str(list(value.shape)), str(value.dtype).removeprefix("torch."), kind(key))
        for key, value in model.state_dict().items()
    }
    assert ours == key_table(name)


def rule(key, z):
    """A weight from its key; the rule of the goldens' README."""
    if key.endswith("running_var"):
        return (1 + 0.1 * z).clamp(0.5, 1.5)
    if key.endswith("running_mean"):
        return 0.05 * z
    if key.endswith("logit_scale"):
        return torch.full_like(z, math.log(60 if key.startswith("backbone.") else 25))
    if key.endswith(".gamma"):
        return 0.2 + 0.05 * z
    if key.endswith("bn3.weight") and ".layer" in key:
        return 0.3 * (1 + 0.1 * z)
    if key.endswith("sampling_offsets.bias"):
        return 2 * z
    if any(part in key for part in ("level_embed", "query_feat", "query_embed", "void_embedding")):
        return z
    return embedding_or_plain(key, z)


def embedding_or_plain(key, z):
    if key.endswith("attnpool.positional_embedding"):
        return z / z.shape[1] ** 0.5
    if key.endswith("clip_model.positional_embedding"):
        return 0.05 * z
    if key.endswith("token_embedding.weight"):
        return 0.5 * z
    if key.endswith("text_projection"):
        return z / z.shape[0] ** 0.5
    if z.ndim == 1:
        return 1 + 0.1 * z if key.endswith("weight") else 0.1 * z
    return z / (z.numel() / z.shape[0]) ** 0.5


def seeded_weights(model, meta):
    weights = {}
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            weights[key] = torch.zeros(value.shape, dtype=value.dtype)
            continue
        if key == "criterion.empty_weight":
            weights[key] = torch.ones(value.shape)
            continue
        generator = torch.Generator().manual_seed(zlib.crc32((meta["salt"] + key).encode()))
        z = torch.randn(value.shape, generator=generator)
        if fingerprint := meta["raw_normal_fingerprints"].get(key):
            assert_close(z.flatten()[:4], torch.tensor(fingerprint["z_first4"]))
        weights[key] = rule(key, z)
    return weights


def variant_of(config):
    """`fcclip_convnext_large_eval_ade20k_r50` -> `rn50`; without a suffix it is the ConvNeXt itself."""
    suffix = config.removeprefix("fcclip_convnext_large_eval_ade20k").strip("_")
    return suffix.replace("r50", "rn50").replace("r101", "rn101") if suffix else "convnext-large"


@pytest.mark.slow
def test_full_size(goldens, full_folder):
    meta, expected = goldens.json(f"{full_folder}/meta.json"), goldens.arrays(f"{full_folder}/outputs.safetensors")
    with torch.device("meta"):
        model = build_fcclip(variant_of(meta["config"]))
    assert len(model.state_dict()) == meta["num_state_dict_tensors"]
    assign_weights(model, seeded_weights(model, meta))
    vocabulary = Vocabulary(
        "golden",
        tuple(Category(i, split_names(line), bool(thing)) for i, (line, thing) in enumerate(meta["test_classes"])),
    )
    with torch.no_grad():
        check(model, meta, expected, vocabulary)
    del model
    gc.collect()


def check(model, meta, expected, vocabulary):
    image = expected["image.0"]
    observed = meta["tolerance_fp32_vs_fp64"]
    isolated = max(ISOLATED, 2 * observed["pred_logits"], 2 * observed["sem_seg"])
    output = model(normalised_batch([image], torch.device("cpu")))
    names = [category.names for category in vocabulary]
    text = encode_names(names, model.backbone.encode_text, open_clip.get_tokenizer("RN50"), torch.device("cpu"))
    final = output.predictions[-1]
    embeddings, valid = model.embed(output.dense, final.mask_logits)
    inside = model.in_vocabulary_logits(final.class_vectors, text)
    outside = model.out_of_vocabulary_logits(embeddings, text)
    assert_close(text.rows, expected["text_classifier"], atol=1e-5, rtol=0)
    channels = expected["clip_vis_dense_first16ch"].shape[1]
    assert_close(output.dense[:, :channels], expected["clip_vis_dense_first16ch"], atol=2e-5, rtol=0)
    every = -(-final.mask_logits.shape[1] // expected["pred_masks_every_10th_query"].shape[1])
    assert_close(final.mask_logits[:, ::every], expected["pred_masks_every_10th_query"], atol=2e-4, rtol=0)
    assert_close(inside, expected["pred_logits"], atol=isolated, rtol=0)
    outside_expected = expected["out_vocab_logits_with_void"][..., :-1]
    rows = valid if meta["ensemble_on_valid_mask"] else torch.ones_like(valid)
    assert_close(outside[rows], outside_expected[rows], atol=isolated, rtol=0)

    seen = torch.tensor(seen_classes(vocabulary, [n for line in meta["train_classes"] for n in split_names(line)]))
    weights = EnsembleWeights(meta["alpha"], meta["beta"], meta["ensemble_on_valid_mask"])
    probabilities = geometric_ensemble(inside, outside, seen, valid, weights)[0].softmax(-1)
    assert_close(probabilities, expected["mask_cls.0"].softmax(-1), atol=isolated, rtol=0)
    size = (image.shape[1], image.shape[2])
    frame = Frame(size, size, tuple(meta["output_size"]))
    scores = semantic_scores(final.mask_logits[0], probabilities, frame)
    assert_close(scores[:, ::4, ::4], expected["sem_seg_stride4"], atol=10 * isolated, rtol=0)
    assert (scores.argmax(0) != expected["sem_seg_argmax"]).float().mean() < 1e-3
    result = panoptic_map(final.mask_logits[0], probabilities, frame, vocabulary, PanopticThresholds())
    assert (torch.from_numpy(result.ids) != expected["panoptic_seg"]).sum() <= 20
    described = [{"id": s.id, "isthing": s.is_thing, "category_id": s.category_id} for s in result.segments]
    assert described == meta["segments_info"]
