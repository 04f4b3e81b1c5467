"""ConvNeXts of sizes that timm has no name for."""

import json

import pytest
import torch
from open_clip import CLIP
from safetensors.torch import save_file

from retclip.adapters.open_clip.convnext import ConvNeXtTower, clip_with_convnext
from retclip.adapters.open_clip.loading import load_open_clip
from retclip.adapters.open_clip.releases import CONFIG_FILE
from retclip.core.errors import ModelError
from tests.adapters.tiny_clip import TEXT, tiny_clip

CPU = torch.device("cpu")
TABLE = {"depths": [1, 2, 4, 2], "dims": [24, 32, 48, 64]}
CONFIG = {"embed_dim": 16, "vision_cfg": {"convnext": TABLE}, "text_cfg": TEXT}


def write(folder, config, clip):
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    save_file({key: value.half() for key, value in clip.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def test_a_tower_survives_its_configuration():
    tower = ConvNeXtTower((1, 2, 4, 2), (24, 32, 48, 64))
    assert ConvNeXtTower.from_config(json.loads(json.dumps(tower.to_config()))) == tower


def test_sizes_and_timm_s_name_describe_the_same_network(settings, tmp_path, pictures):
    """The reference is the tower that open_clip itself builds by name."""
    named = {"vision_cfg": {"timm_model_name": "convnext_tiny", "timm_pool": "", "timm_proj": "mlp", "image_size": 64}}
    sized = {"vision_cfg": {"convnext": {"depths": [3, 3, 9, 3], "dims": [96, 192, 384, 768]}}}
    clip = tiny_clip("convnext", **named)
    by_name, by_size = (
        load_open_clip(settings, write(tmp_path / next(iter(vision["vision_cfg"])), CONFIG | vision, clip), CPU)
        for vision in (named, sized)
    )
    assert by_size.space == by_name.space
    one, other = (encoder.encode_images(pictures[:1])[0] for encoder in (by_name, by_size))
    assert torch.equal(one.values, other.values)
    mask = torch.ones(1, *pictures[0].shape[:2], dtype=torch.bool)
    assert torch.equal(by_name.embed(one, mask), by_size.embed(other, mask))


def test_the_whole_picture_pools_to_the_ordinary_embedding():
    clip = clip_with_convnext(ConvNeXtTower.from_config(TABLE), CONFIG).eval()
    assert isinstance(clip, CLIP)
    with torch.no_grad():
        assert clip.encode_image(torch.rand(2, 3, 64, 96)).shape == (2, 16)


@pytest.mark.parametrize(
    "table",
    [
        "tiny",
        {},
        {"depths": [1, 1, 1, 1]},
        TABLE | {"code": "x"},
        TABLE | {"depths": [1, 1, 1]},
        TABLE | {"depths": [1, 1, 1, 10**9]},
        TABLE | {"dims": [24, 32, 48, 0]},
        TABLE | {"dims": [24, 32, 48, 64.0]},
        TABLE | {"dims": [24, 32, 48, True]},
        TABLE | {"dims": "abcd"},
    ],
)
def test_other_tables_are_refused(table, settings, tmp_path):
    clip = clip_with_convnext(ConvNeXtTower.from_config(TABLE), CONFIG)
    folder = write(tmp_path / "clip", CONFIG | {"vision_cfg": {"convnext": table}}, clip)
    with pytest.raises(ModelError) as raised:
        load_open_clip(settings, folder, CPU)
    assert raised.value.code == "E221"
