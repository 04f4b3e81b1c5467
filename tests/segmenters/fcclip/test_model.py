from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from retclip.core.errors import ModelError
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.variants import VARIANTS, ResNetTower, build_fcclip, variant_named
from retclip.segmenters.layers.classification import TextRows


@pytest.fixture
def images():
    return normalised_batch([torch.randint(255, (3, 64, 96), dtype=torch.uint8)] * 2, torch.device("cpu"))


def test_parameter_counts_of_the_releases():
    counts = {"convnext-large": (372_494_210, 20_721_601), "rn50x64": (645_274_754, 22_016_449)}
    for name, (total, trained) in counts.items():
        with torch.device("meta"):
            parameters = list(build_fcclip(name).parameters())
        assert sum(p.numel() for p in parameters) == total
        assert sum(p.numel() for p in parameters if p.requires_grad) == trained


def test_open_clips_own_models_have_the_same_keys_and_activation():
    import open_clip

    for variant in VARIANTS.values():
        if not variant.open_clip_weights:
            continue
        model, tag = variant.open_clip_weights.split("/")
        config = open_clip.get_model_config(f"{model}-quickgelu" if tag == "openai" else model)
        with torch.device("meta"):
            theirs = open_clip.CLIP(**config).state_dict()
            ours = build_fcclip(variant).backbone.clip_model.state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
        assert variant.text.quick_gelu == bool(config.get("quick_gelu"))


def test_training_mode_leaves_clip_in_evaluation_mode(images):
    tiny = VARIANTS["tiny"]
    model = build_fcclip(replace(tiny, image=ResNetTower((1, 1, 1, 1), 8, 64, 4))).train()
    statistics = {k: v.clone() for k, v in model.backbone.state_dict().items()}
    model(images)
    assert_close(model.backbone.state_dict(), statistics)
    assert model.sem_seg_head.training
    assert not any(module.training for module in model.backbone.clip_model.modules())


def test_no_gradient_reaches_clip(tiny, images):
    output = tiny(images, every_layer=True)
    sum(p.mask_logits.sum() + p.class_vectors.sum() for p in output.predictions).backward()
    assert all(p.grad is None for p in tiny.backbone.parameters())
    assert tiny.sem_seg_head.pixel_decoder.mask_features.weight.grad is not None
    tiny.zero_grad(set_to_none=True)


def test_the_final_prediction_is_the_same_with_and_without_the_others(tiny, images):
    with torch.no_grad():
        (final,) = tiny(images).predictions
        every = tiny(images, every_layer=True).predictions
    assert len(every) == 1 + VARIANTS["tiny"].head.decoder_layers
    assert torch.equal(final.class_vectors, every[-1].class_vectors)
    assert torch.equal(final.mask_logits, every[-1].mask_logits)


def test_any_vocabulary_can_be_asked_of_one_pass(tiny, images):
    rows = torch.nn.functional.normalize(torch.randn(5, 48), dim=-1)
    with torch.no_grad():
        vectors = tiny(images).predictions[-1].class_vectors
        one = tiny.in_vocabulary_logits(vectors, TextRows(rows, (2, 3)))
        other = tiny.in_vocabulary_logits(vectors, TextRows(rows, (1, 1, 3)))
    assert one.shape[-1] == 3
    assert other.shape[-1] == 4
    assert_close(one[..., 0], other[..., :2].amax(-1))
    assert_close(one[..., 1:], other[..., 2:])


def test_unknown_variants_are_refused_with_the_known_names():
    with pytest.raises(ModelError, match="convnext-large") as raised:
        variant_named("convnext")
    assert raised.value.code == "E208"
