"""timm backbones as dense encoders: the contract over families, and weights from untrusted files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from retclip.adapters.preprocessing import scaled_size
from retclip.adapters.timm_backbone import TimmEncoder, load_timm_encoder
from retclip.core.errors import InputError, ModelError, RetclipError
from retclip.ports.encoders import DenseFeatures, embed_regions
from retclip.presets import EncoderSettings

CPU = torch.device("cpu")
MODEL = "test_efficientnet"  # timm's own miniature, 0.4 MB
SMALL = EncoderSettings(
    model=MODEL, weights="w", layers=("blocks.1", "blocks.3"), stride=16, short_side=64, long_side=256
)

FAMILIES: dict[str, tuple[EncoderSettings, int]] = {
    "mobilenet": (EncoderSettings(model="mobilenetv2_100", layers=("blocks.3", "blocks.5"), stride=16), 64 + 160),
    "mobilenet dilated": (EncoderSettings(model="mobilenetv2_100", stride=16, model_args={"output_stride": 16}), 1280),
    "resnet": (EncoderSettings(model="resnet18", layers=("layer3", "layer4"), stride=16), 256 + 512),
    "resnet last": (EncoderSettings(model="resnet18", stride=32), 512),
    "convnext": (EncoderSettings(model="convnext_atto", layers=("stages.2", "stages.3"), stride=32), 160 + 320),
    "vit": (
        EncoderSettings(
            model="vit_tiny_patch16_224",
            layers=("blocks.5", "blocks.11"),
            stride=16,
            model_args={"dynamic_img_size": True},
        ),
        2 * 192,
    ),
    "swin": (
        EncoderSettings(
            model="swin_tiny_patch4_window7_224",
            layers=("layers.2", "layers.3"),
            stride=32,
            model_args={"strict_img_size": False, "always_partition": True},
        ),
        384 + 768,
    ),
}


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


def random_model(settings_: EncoderSettings) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(settings_.model, num_classes=0, **settings_.model_args)
    return model


def make(settings_: EncoderSettings) -> TimmEncoder:
    return TimmEncoder(random_model(settings_), settings_, CPU)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 5 // width
    return coarse[rows][:, columns]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[TimmEncoder, EncoderSettings, int]:
    chosen, dim = FAMILIES[request.param]
    chosen = replace(chosen, short_side=64, long_side=128)
    return make(chosen), chosen, dim


def test_maps_have_the_declared_dim_stride_and_extent(family: tuple[TimmEncoder, EncoderSettings, int]) -> None:
    encoder, chosen, dim = family
    assert encoder.space.dim == dim
    assert encoder.space.stride == chosen.stride
    images = [photo(70, 100), photo(100, 70), photo(40, 400), photo(3, 2)]
    for image, features in zip(images, encoder.encode_images(images), strict=True):
        height, width = scaled_size(*image.shape[:2], 64, 128)
        assert features.values.shape[0] == dim
        assert features.extent == (height / chosen.stride, width / chosen.stride)
        assert features.values.shape[1] >= features.extent[0]
        assert features.values.shape[2] >= features.extent[1]
        assert features.values.dtype == torch.float32
        assert torch.isfinite(features.values).all()


def test_a_picture_gives_the_same_vectors_alone_and_in_company(
    family: tuple[TimmEncoder, EncoderSettings, int],
) -> None:
    encoder = family[0]
    images = [photo(70, 100, 1), photo(90, 90, 2), photo(70, 100, 3)]
    mask = torch.zeros(2, 70, 100, dtype=torch.bool)
    mask[0, :35], mask[1, :, 60:] = True, True
    together = embed_regions(encoder, encoder.encode_images(images)[2], mask)
    alone = embed_regions(encoder, encoder.encode_images(images[2:])[0], mask)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(2))
    other = embed_regions(encoder, encoder.encode_images(images[:1])[0], mask)
    assert (other - alone).abs().max() > 1e-3


def test_every_layer_weighs_the_same(family: tuple[TimmEncoder, EncoderSettings, int]) -> None:
    encoder, chosen, dim = family
    layers = max(1, len(chosen.layers))
    values = torch.randn(dim, 1, 3, generator=torch.Generator().manual_seed(0)) * 100
    keys = encoder.embed(DenseFeatures(values, (1.0, 3.0)), torch.eye(3, dtype=torch.bool)[:, None])
    torch.testing.assert_close(keys.square().sum(dim=1), torch.full((3,), float(layers)))


def test_features_follow_the_picture() -> None:
    """A mark in one corner changes the cells there more than those far away."""
    encoder = make(replace(SMALL, short_side=128))
    plain = np.full((128, 128, 3), 128, np.uint8)
    marked = plain.copy()
    marked[:32, 96:] = (255, 0, 0)
    before, after = (features.values for features in encoder.encode_images([plain, marked]))
    change = (after - before).abs().sum(dim=0)
    top, left = divmod(int(change.argmax()), change.shape[1])
    assert top <= 2
    assert left >= change.shape[1] - 3


def test_spaces_tell_settings_and_weights_apart() -> None:
    torch.manual_seed(1)
    other_weights = TimmEncoder(timm.create_model(MODEL, num_classes=0), SMALL, CPU)
    spaces = [
        make(SMALL).space,
        other_weights.space,
        make(replace(SMALL, layers=("blocks.3", "blocks.1"))).space,
        make(replace(SMALL, stride=32)).space,
        make(replace(SMALL, short_side=96)).space,
        make(replace(SMALL, mean=(0.5, 0.5, 0.5))).space,
        make(replace(SMALL, model_args={"drop_rate": 0.1})).space,
    ]
    assert len({space.fingerprint for space in spaces}) == len(spaces)
    assert make(SMALL).space == spaces[0]


def test_layers_that_are_not_there_or_take_no_part_are_named() -> None:
    with pytest.raises(InputError, match=r"no module 'blocks\.9'") as caught:
        make(replace(SMALL, layers=("blocks.9",)))
    assert caught.value.code == "E146"
    assert "blocks." in caught.value.why
    model = timm.create_model(MODEL, num_classes=5)
    with pytest.raises(InputError, match="classifier took no part") as caught:
        TimmEncoder(model, replace(SMALL, layers=("classifier",)), CPU)
    assert caught.value.code == "E146"


@pytest.mark.parametrize("model", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_networks_of_one_size_say_so_before_the_first_picture(model: str) -> None:
    with pytest.raises(InputError, match=model) as caught:
        make(EncoderSettings(model=model, stride=16))
    assert caught.value.code == "E147"


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 900), st.integers(0, 900))
def test_scaled_sizes_keep_the_shape_within_the_bounds(height: int, width: int, short: int, more: int) -> None:
    new_height, new_width = scaled_size(height, width, short, short + more)
    assert max(new_height, new_width) <= short + more
    assert min(new_height, new_width) <= short
    assert min(new_height, new_width) == short or max(new_height, new_width) == short + more
    if min(new_height, new_width) > 1:
        assert abs(new_height - new_width * height / width) <= 0.5 + 0.5 * max(1, height / width)


def test_unknown_networks_and_arguments_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(random_model(SMALL).state_dict(), path)
    with pytest.raises(ModelError, match="no model 'mobilnetv2_100'") as caught:
        load_timm_encoder(replace(SMALL, model="mobilnetv2_100"), path, CPU)
    assert caught.value.code == "E208"
    assert "mobilenetv2_100" in caught.value.why
    with pytest.raises(InputError, match="model_args") as refused:
        load_timm_encoder(replace(SMALL, model_args={"colour": 1}), path, CPU)
    assert refused.value.code == "E147"


@pytest.mark.parametrize(
    "name", ["checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "scriptable"]
)
def test_arguments_that_load_files_cannot_come_from_a_preset(tmp_path: Path, name: str) -> None:
    """A preset travels inside a database; `checkpoint_path` names any file, and older timm releases unpickle it."""
    trap, path, tensors = tmp_path / "executed", tmp_path / "w.safetensors", random_model(SMALL).state_dict()
    save_file(tensors, path)
    torch.save({**tensors, "bomb": Bomb(trap)}, tmp_path / "evil.pth")
    with pytest.raises(RetclipError) as caught:
        load_timm_encoder(replace(SMALL, model_args={name: str(tmp_path / "evil.pth")}), path, CPU)
    assert caught.value.code == "E147"
    assert not trap.exists()


@pytest.mark.parametrize("model", ["hf-hub:someone/net", "local-dir:/tmp", "../net", ""])
def test_only_names_of_timm_are_networks(model: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_timm_encoder(replace(SMALL, model=model), Path("w"), CPU)
    assert caught.value.code == "E208"


def test_a_release_of_timm_is_read_as_timm_reads_it(tmp_path: Path) -> None:
    """The hub's files have a classifier and 1,000 classes; a file that a preset names must fit exactly."""
    torch.manual_seed(0)
    whole = timm.create_model(MODEL)
    path = tmp_path / "model.safetensors"
    save_file(whole.state_dict(), path)
    whole.reset_classifier(0)
    released = load_timm_encoder(replace(SMALL, weights="hub"), path, CPU)
    assert released.space == TimmEncoder(whole, SMALL, CPU).space
    with pytest.raises(ModelError, match="does not fit") as caught:
        load_timm_encoder(SMALL, path, CPU)
    assert caught.value.code == "E207"


def test_a_release_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(ModelError, match=MODEL) as caught:
        load_timm_encoder(replace(SMALL, weights="hub"), path, CPU)
    assert (caught.value.code, caught.value.why != "") == ("E207", True)
    with pytest.raises(InputError) as refused:
        load_timm_encoder(replace(SMALL, weights="hub", model_args={"colour": 1}), path, CPU)
    assert refused.value.code == "E147"
