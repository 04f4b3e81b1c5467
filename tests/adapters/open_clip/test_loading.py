"""From settings and files to an encoder, and everything that can be wrong with them."""

import json
from dataclasses import replace

import pytest
import torch
from open_clip import CLIP, factory, pretrained
from safetensors.torch import load_file, save_file

from retclip.adapters.open_clip.loading import backbone_of, build_clip, load_open_clip
from retclip.adapters.open_clip.releases import CONFIG_FILE, find_release
from retclip.core.errors import InputError, ModelError, RetclipError
from retclip.presets import EncoderSettings
from tests.adapters.tiny_clip import VISION, tiny_clip, tiny_config, write_tiny_clip

CPU = torch.device("cpu")
WEIGHTS = "open_clip_model.safetensors"


def refusal(code, call, *given):
    with pytest.raises(RetclipError) as caught:
        call(*given)
    error = caught.value
    assert error.code == code
    assert error.what
    assert error.why
    assert error.fix
    return error


@pytest.fixture
def folder(tmp_path):
    return write_tiny_clip(tmp_path / "clip", "vit")


def rewrite(folder, change):
    file = json.loads((folder / CONFIG_FILE).read_text())
    change(file)
    (folder / CONFIG_FILE).write_text(json.dumps(file))
    return folder


@pytest.fixture
def named(monkeypatch):
    """Tiny architectures under names that open_clip knows, with two releases each."""
    tags = {"openai": {"quick_gelu": True, "hf_hub": "hub/tiny.openai/"}, "laion": {"mean": (0.5, 0.5, 0.5)}}
    for kind in VISION:
        monkeypatch.setitem(factory._MODEL_CONFIGS, f"tiny-{kind}", tiny_config(kind))
        monkeypatch.setitem(pretrained._PRETRAINED, f"tiny-{kind}", tags)


def settings_for(kind, release=""):
    return EncoderSettings(
        library="open_clip", model=f"tiny-{kind}", pretrained=release, weights="x", short_side=64, long_side=96
    )


@pytest.mark.usefixtures("named")
def test_a_file_of_a_named_architecture_is_the_same_network_as_its_folder(folders, kind, settings):
    by_name = load_open_clip(settings_for(kind), folders[kind] / WEIGHTS, CPU)
    by_folder = load_open_clip(settings, folders[kind], CPU)
    assert by_name.space.weights_sha256 == by_folder.space.weights_sha256
    assert by_name.space.encoder == f"open_clip/tiny-{kind}"
    assert torch.equal(by_name.encode_names(["cat"]), by_folder.encode_names(["cat"]))


@pytest.mark.usefixtures("named")
def test_exports_of_other_kinds_hold_the_same_network(folders, kind, tmp_path):
    tensors = load_file(folders[kind] / WEIGHTS)
    expected = load_open_clip(settings_for(kind), folders[kind] / WEIGHTS, CPU).space
    training = {f"module.{key}": value for key, value in tensors.items()}
    torch.save({"epoch": 3, "state_dict": training}, tmp_path / "epoch_3.pt")
    extra = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    torch.save(extra | {"attn_mask": torch.zeros(77, 77), "vocab_size": torch.tensor(49408)}, tmp_path / "old.bin")
    for name in ("epoch_3.pt", "old.bin"):
        assert load_open_clip(settings_for(kind), tmp_path / name, CPU).space == expected


@pytest.mark.usefixtures("named")
def test_half_precision_files_compute_in_single_precision(folders, kind, tmp_path, pictures):
    half = {k: v.half() if v.is_floating_point() else v for k, v in load_file(folders[kind] / WEIGHTS).items()}
    save_file(half, tmp_path / "half.safetensors")
    encoder = load_open_clip(settings_for(kind), tmp_path / "half.safetensors", CPU)
    (features,) = encoder.encode_images(pictures[:1])
    assert features.values.dtype == encoder.encode_names(["cat"]).dtype == torch.float32


@pytest.mark.parametrize(
    ("model", "release", "quick"),
    [
        ("ViT-B-16", "openai", True),
        ("ViT-B-16-quickgelu", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16", "dfn2b", True),
        ("ViT-L-14-336", "openai", True),
        ("RN50x64", "openai", True),
        ("convnext_large_d_320", "laion2b_s29b_b131k_ft_soup", False),
        ("ViT-B-16", "", False),
        ("ViT-B-16-quickgelu", "", True),
    ],
)
def test_the_release_decides_the_activation(model, release, quick, settings, tmp_path):
    found = find_release(replace(settings, model=model, pretrained=release), tmp_path / "weights.safetensors")
    assert found.config["quick_gelu"] is quick
    backbone = backbone_of(build_clip(found), model)
    assert backbone.activation == ("quick_gelu" if quick else "")


@pytest.mark.usefixtures("named")
def test_the_activation_changes_space_and_texts_but_not_the_digest(folders):
    exact = load_open_clip(settings_for("vit"), folders["vit"] / WEIGHTS, CPU)
    quick = load_open_clip(settings_for("vit", "openai"), folders["vit"] / WEIGHTS, CPU)
    assert exact.space.differences(quick.space) == ["activation:  != quick_gelu"]
    assert not torch.allclose(exact.encode_names(["cat"]), quick.encode_names(["cat"]), atol=1e-4)


def test_a_folder_says_itself_which_activation_and_normalisation(folder, settings):
    assert load_open_clip(settings, folder, CPU).space.activation == ""
    rewrite(folder, lambda file: file["model_cfg"].update(quick_gelu=True))
    rewrite(folder, lambda file: file.update(preprocess_cfg={"mean": [0.5, 0.4, 0.3], "std": [1, 1, 0.5]}))
    space = load_open_clip(settings, folder, CPU).space
    assert (space.activation, space.mean, space.std) == ("quick_gelu", (0.5, 0.4, 0.3), (1.0, 1.0, 0.5))
    rewrite(folder, lambda file: file["model_cfg"].update(quick_gelu=False))
    assert load_open_clip(replace(settings, pretrained="openai"), folder, CPU).space.activation == "quick_gelu"


@pytest.mark.usefixtures("named")
def test_the_release_decides_the_normalisation(folders):
    assert load_open_clip(settings_for("vit", "laion"), folders["vit"] / WEIGHTS, CPU).space.mean == (0.5, 0.5, 0.5)


def test_the_quickgelu_in_a_name_makes_no_other_space(folders, settings):
    one = load_open_clip(replace(settings, model="V", pretrained="openai"), folders["vit"], CPU).space
    assert load_open_clip(replace(settings, model="V-quickgelu", pretrained="openai"), folders["vit"], CPU).space == one


def test_unknown_names_are_answered_with_close_or_known_ones(settings, tmp_path):
    file = tmp_path / "weights.safetensors"
    assert "ViT-B-16" in refusal("E208", find_release, replace(settings, model="ViT-B16"), file).why
    wrong = replace(settings, model="ViT-B-16", pretrained="opneai")
    assert "openai" in refusal("E208", find_release, wrong, file).why
    for address in ("hf-hub:somebody/model", f"local-dir:{tmp_path}"):
        refusal("E208", find_release, replace(settings, model=address), file)


@pytest.mark.parametrize(
    "model", ["ViT-B-16-SigLIP", "EVA02-B-16", "coca_ViT-B-32", "roberta-ViT-B-32", "ViTamin-S", "convnext_base_w"]
)
def test_towers_without_dense_features_are_named(model, settings, tmp_path):
    release = find_release(replace(settings, model=model), tmp_path / "weights.safetensors")
    if model == "convnext_base_w":
        assert backbone_of(build_clip(release), model).stride == 32
        return
    error = refusal("E220", lambda: backbone_of(build_clip(release), model))
    assert isinstance(error, InputError)
    assert "ConvNeXt" in error.why


@pytest.mark.parametrize(
    "vision",
    [
        {"attentional_pool": True, "attn_pooler_heads": 4},
        {"block_type": "custom"},
        VISION["convnext"] | {"timm_pool": "rot_attn", "timm_proj": ""},
        VISION["convnext"] | {"timm_model_name": "convnext_tiny_hnf"},
        {"timm_model_name": "hf-hub:somebody/network"},
        {"timm_model_name": "test_vit"},
    ],
    ids=lambda vision: "-".join(map(str, vision.values())),
)
def test_image_towers_that_pool_otherwise_are_refused(folder, settings, vision):
    rewrite(folder, lambda file: file["model_cfg"]["vision_cfg"].update(vision))
    refusal("E220", load_open_clip, settings, folder, CPU)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"model_cfg": []}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": 3}}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": [1]}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {"mean": [1]}}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {"mean": 1}}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": {"std": [0, 1, 1]}}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {}, "embed_dim": "many"}}',
        '{"model_cfg": {"vision_cfg": {}, "text_cfg": {"layers": 0}, "embed_dim": 8}}',
        '{"model_cfg": {"vision_cfg": {"hidden": 3}, "text_cfg": {}, "embed_dim": 8}}',
        "[" * 100_000,
        " " * 1_000_001,
    ],
    ids=range(14),
)
def test_configurations_that_describe_no_clip_are_named(folder, settings, content):
    (folder / CONFIG_FILE).write_text(content)
    error = refusal("E221", load_open_clip, settings, folder, CPU)
    assert str(folder / CONFIG_FILE) in error.what


def test_a_folder_without_configuration_or_weights_is_refused(folder, settings):
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in refusal("E201", load_open_clip, settings, folder, CPU).why
    (folder / CONFIG_FILE).unlink()
    refusal("E221", load_open_clip, settings, folder, CPU)


def test_an_enormous_configuration_costs_no_memory(folder, settings):
    rewrite(folder, lambda file: file["model_cfg"]["vision_cfg"].update(width=1_000_000, head_width=1000, layers=2))
    assert "instead of" in refusal("E207", load_open_clip, settings, folder, CPU).why


def test_weights_of_another_size_are_refused(folder, settings, folders):
    rewrite(folder, lambda file: file["model_cfg"]["vision_cfg"].update(image_size=64))
    assert "positional_embedding" in refusal("E207", load_open_clip, settings, folder, CPU).why
    (folder / CONFIG_FILE).write_bytes((folders["resnet"] / CONFIG_FILE).read_bytes())
    refusal("E207", load_open_clip, settings, folder, CPU)


@pytest.mark.usefixtures("named")
def test_a_torchscript_archive_is_refused_and_the_safetensors_of_the_same_weights_named(tmp_path):
    class Program(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    archive = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.script(Program()), archive)
    error = refusal("E204", load_open_clip, settings_for("vit", "openai"), archive, CPU)
    assert isinstance(error, ModelError)
    assert "TorchScript" in error.why
    assert "hub/tiny.openai" in error.fix


def test_damaged_and_absent_weights_keep_their_own_errors(folder, settings):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-100])
    refusal("E202", load_open_clip, settings, folder, CPU)
    refusal("E201", load_open_clip, replace(settings, model="RN50"), folder / "absent.safetensors", CPU)


def test_a_text_tower_that_sees_what_follows_goes_through_open_clip(folder, settings):
    """Without a causal mask, or with a projection that has a bias, nothing may be cut off."""
    for text in ({"no_causal_mask": True}, {"proj_bias": True}, {"no_causal_mask": True, "pool_type": "last"}):
        config = tiny_config("vit")
        config["text_cfg"].update(text)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            clip = CLIP(**config).eval()
        save_file(clip.state_dict(), folder / WEIGHTS)
        (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": config}))
        tokens = torch.tensor([[49406, 320, 2368, 49407, *[0] * 73]])
        with torch.no_grad():
            ours = backbone_of(clip, "tiny").encode_text(tokens)
            assert torch.equal(ours, clip.encode_text(tokens))
        assert load_open_clip(settings, folder, CPU).encode_names(["cat"]).isfinite().all()


def test_networks_differ_by_their_seed(tmp_path, settings):
    spaces = {
        load_open_clip(settings, write_tiny_clip(tmp_path / str(seed), "vit", seed), CPU).space for seed in (0, 1, 0)
    }
    assert len(spaces) == 2
    assert torch.equal(tiny_clip("vit", 3).visual.proj, tiny_clip("vit", 3).visual.proj)
