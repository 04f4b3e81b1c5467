import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from retclip.core.errors import ModelError
from retclip.core.weights import read_weights
from retclip.segmenters.fcclip.checkpoint import convert, fitting_variant, load_clip_weights, load_fcclip
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.variants import VARIANTS, build_fcclip


@pytest.fixture
def weights(tiny):
    return dict(tiny.state_dict())


@pytest.fixture
def released(tmp_path, weights):
    """As released: a torch pickle with the weights under `model`, and the causal mask that older exports carry."""
    path = tmp_path / "fcclip_cocopan.pth"
    mask = {"backbone.clip_model.attn_mask": torch.zeros(77, 77)}
    torch.save({"model": {**weights, **mask}, "trainer": {}, "iteration": 7}, path)
    return path


def error(call, *given):
    with pytest.raises(ModelError) as raised:
        call(*given)
    return raised.value


def test_a_released_file_gives_the_same_network(released, tiny):
    model = load_fcclip(released, "tiny")
    assert not [name for name, value in model.named_buffers() if value.is_meta]
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in tiny.named_parameters() if p.requires_grad
    }
    images = normalised_batch([torch.randint(255, (3, 64, 96), dtype=torch.uint8)], torch.device("cpu"))
    tokens = torch.randint(49408, (2, 77))
    with torch.no_grad():
        assert torch.equal(model(images).predictions[-1].mask_logits, tiny(images).predictions[-1].mask_logits)
        assert torch.equal(model.backbone.encode_text(tokens), tiny.backbone.encode_text(tokens))


def test_safetensors_and_bare_tables_are_read_too(tmp_path, released, weights):
    convert(released, tmp_path / "converted.safetensors")
    torch.save(weights, tmp_path / "bare.pt")
    for name in ("converted.safetensors", "bare.pt"):
        assert_close(load_fcclip(tmp_path / name, "tiny").state_dict(), weights)
    assert load_file(tmp_path / "converted.safetensors").keys() == read_weights(released).keys()


def test_half_precision_files_become_float32(tmp_path, weights):
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(half, tmp_path / "half.safetensors")
    loaded = load_fcclip(tmp_path / "half.safetensors", "tiny")
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}


class Harmful:
    """Unpickling this would run code."""

    executed = False

    def __reduce__(self):
        return setattr, (Harmful, "executed", True)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [Harmful(), {"model": {"weight": Harmful()}}])
def test_code_objects_are_refused_and_not_run(tmp_path, content):
    path = tmp_path / "harmful.pth"
    torch.save(content, path)
    assert error(read_weights, path).code == "E204"
    path.write_bytes(pickle.dumps(content))
    assert error(read_weights, path).code == "E204"
    assert not Harmful.executed


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors"])
def test_missing_files(tmp_path, name):
    assert error(read_weights, tmp_path / name).code == "E201"


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
def test_half_a_file(tmp_path, released, weights, name):
    save_file(weights, tmp_path / "whole.safetensors")
    whole = released if name.endswith("pth") else tmp_path / "whole.safetensors"
    (tmp_path / name).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert error(read_weights, tmp_path / name).code == "E202"


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 3}}, {"model": 5}, torch.zeros(3)])
def test_files_of_another_kind(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    assert error(read_weights, tmp_path / "other.pth").code == "E204"


def test_a_missing_an_unknown_and_a_wrong_tensor_are_named(tmp_path, weights):
    weights["sem_seg_head.extra"] = torch.zeros(2)
    del weights["void_embedding.weight"]
    weights["sem_seg_head.predictor.query_feat.weight"] = torch.zeros(3, 64)
    save_file(weights, tmp_path / "odd.safetensors")
    found = error(load_fcclip, tmp_path / "odd.safetensors", "tiny")
    assert found.code == "E207"
    assert "missing void_embedding.weight (1, 48)" in found.why
    assert "unknown sem_seg_head.extra (2,)" in found.why
    assert "sem_seg_head.predictor.query_feat.weight is (3, 64), expected (20, 64)" in found.why
    assert "fit no known variant" in found.fix


def test_the_variant_that_would_fit_is_named(tmp_path, released):
    found = error(load_fcclip, released, "rn50")
    assert found.code == "E207"
    assert "more." in found.why
    assert "'tiny'" in found.fix
    assert error(load_fcclip, released, "rn49").code == "E208"


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_knows_its_own_weights(name):
    with torch.device("meta"):
        weights = build_fcclip(name).state_dict()
    assert fitting_variant(weights) == name


def test_clip_weights_fill_the_frozen_part(tmp_path, tiny):
    clip = tiny.backbone.clip_model.state_dict()
    save_file(clip, tmp_path / "clip.safetensors")
    model = build_fcclip("tiny")
    load_clip_weights(tmp_path / "clip.safetensors", model)
    assert_close(model.backbone.clip_model.state_dict(), clip)
    clip.pop("logit_scale")
    save_file(clip, tmp_path / "less.safetensors")
    assert "missing logit_scale" in error(load_clip_weights, tmp_path / "less.safetensors", model).why


def test_a_resnet_variant_loads_with_its_batch_statistics(tmp_path, small_resnet):
    model = build_fcclip(small_resnet)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "r.safetensors")
    loaded = load_fcclip(tmp_path / "r.safetensors", small_resnet)
    assert_close(loaded.state_dict(), model.state_dict())


def test_a_network_trained_on_other_classes_fits_its_variant(tmp_path, weights):
    weights["criterion.empty_weight"] = torch.ones(8)
    save_file(weights, tmp_path / "own.safetensors")
    assert load_fcclip(tmp_path / "own.safetensors", "tiny").criterion.empty_weight.tolist() == [1.0] * 8
    assert fitting_variant(weights) == "tiny"
    weights["criterion.empty_weight"] = torch.ones(2, 4)
    save_file(weights, tmp_path / "odd.safetensors")
    assert error(load_fcclip, tmp_path / "odd.safetensors", "tiny").code == "E207"
