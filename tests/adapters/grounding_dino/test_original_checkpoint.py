import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoImageProcessor

from retclip.adapters.grounding_dino import load_grounding_dino, loading
from retclip.adapters.grounding_dino.original_checkpoint import ORIGINAL_MODELS, original_config, renamed_tensors
from retclip.adapters.transformers_network import read_json
from retclip.core.errors import ModelError
from retclip.core.weights import read_weights
from retclip.presets.networks import DetectorSettings
from tests.adapters.tiny_models import write_tiny_grounding_dino

CPU = torch.device("cpu")
SETTINGS = DetectorSettings("grounding_dino", "IDEA-Research/grounding-dino-tiny")

# transformers' names -> the authors', in the words of the authors' code.
_BACK = (
    (r"model\.text_backbone", "bert"),
    (r"model\.backbone\.conv_encoder\.model\.embeddings\.patch_embeddings\.projection", "backbone.0.patch_embed.proj"),
    (r"model\.backbone\.conv_encoder\.model\.embeddings\.norm", "backbone.0.patch_embed.norm"),
    (r"model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage2", "backbone.0.norm1"),
    (r"model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage3", "backbone.0.norm2"),
    (r"model\.backbone\.conv_encoder\.model\.hidden_states_norms\.stage4", "backbone.0.norm3"),
    (r"model\.backbone\.conv_encoder\.model\.encoder\.layers", "backbone.0.layers"),
    (r"(backbone.*)layernorm_before", r"\1norm1"),
    (r"(backbone.*)layernorm_after", r"\1norm2"),
    (r"(backbone.*)attention\.self\.relative", r"\1attn.relative"),
    (r"(backbone.*)attention\.self\.(query|key|value)\.(weight|bias)", r"\1attn.qkv.\3#\2"),
    (r"(backbone.*)attention\.output\.dense", r"\1attn.proj"),
    (r"(backbone.*)intermediate\.dense", r"\1mlp.fc1"),
    (r"(backbone.*)output\.dense", r"\1mlp.fc2"),
    (r"model\.text_projection", "feat_map"),
    (r"model\.input_proj_vision", "input_proj"),
    (r"model\.query_position_embeddings", "transformer.tgt_embed"),
    (r"model\.encoder_output_bbox_embed", "transformer.enc_out_bbox_embed"),
    (r"model\.(level_embed|enc_output)", r"transformer.\1"),
    (r"model\.decoder\.reference_points_head", "transformer.decoder.ref_point_head"),
    (r"model\.decoder\.layer_norm", "transformer.decoder.norm"),
    (r"model\.decoder\.bbox_embed", "transformer.decoder.bbox_embed"),
    (r"model\.encoder\.layers\.(\d+)\.fusion_layer\.vision_param", r"transformer.encoder.fusion_layers.\1.gamma_v"),
    (r"model\.encoder\.layers\.(\d+)\.fusion_layer\.text_param", r"transformer.encoder.fusion_layers.\1.gamma_l"),
    (r"model\.encoder\.layers\.(\d+)\.fusion_layer", r"transformer.encoder.fusion_layers.\1"),
    (r"(fusion.*)layer_norm_vision", r"\1layer_norm_v"),
    (r"(fusion.*)layer_norm_text", r"\1layer_norm_l"),
    (r"(fusion.*)vision_proj", r"\1v_proj"),
    (r"(fusion.*)text_proj", r"\1l_proj"),
    (r"model\.encoder\.layers\.(\d+)\.text_enhancer_layer", r"transformer.encoder.text_layers.\1"),
    (r"(text_layers.*)layer_norm_before", r"\1norm1"),
    (r"(text_layers.*)layer_norm_after", r"\1norm2"),
    (r"model\.encoder\.layers\.(\d+)\.deformable_layer", r"transformer.encoder.layers.\1"),
    (r"(encoder\.layers.*)self_attn_layer_norm", r"\1norm1"),
    (r"(encoder\.layers.*)final_layer_norm", r"\1norm2"),
    (r"model\.decoder\.layers", "transformer.decoder.layers"),
    (r"(decoder\.layers.*)encoder_attn_text_layer_norm", r"\1catext_norm"),
    (r"(decoder\.layers.*)encoder_attn_layer_norm", r"\1norm1"),
    (r"(decoder\.layers.*)self_attn_layer_norm", r"\1norm2"),
    (r"(decoder\.layers.*)final_layer_norm", r"\1norm3"),
    (r"(decoder\.layers.*)encoder_attn_text", r"\1ca_text"),
    (r"(decoder\.layers.*)encoder_attn", r"\1cross_attn"),
    (r"(transformer.*\.(?:self_attn|ca_text))\.(query|key|value)\.(weight|bias)", r"\1.in_proj_\3#\2"),
    (r"(transformer.*)\.fc([12])", r"\1.linear\2"),
)


def original_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the authors' training code would have saved for these weights."""
    result: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        # The last norm of Swin is no part of the authors' backbone, nor of any output.
        if ".swin.layernorm" in key:
            continue
        name = key
        for pattern, replacement in _BACK:
            name = re.sub(pattern, replacement, name)
        name, _, part = name.partition("#")
        if part:
            parts.setdefault(name, {})[part] = tensor
        else:
            result[f"module.{name}"] = tensor
    for name, split in parts.items():
        result[f"module.{name}"] = torch.cat([split["query"], split["key"], split["value"]])
    for key in [key for key in result if ".bbox_embed." in key and "transformer" not in key]:
        result[key.replace("module.", "module.transformer.decoder.")] = result[key]
    result["module.backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16).long()
    result["module.bert.embeddings.position_ids"] = torch.arange(512)[None]
    result["module.bert.pooler.dense.weight"] = torch.zeros(32, 32)
    result["module.bert.pooler.dense.bias"] = torch.zeros(32)
    result["module.label_enc.weight"] = torch.zeros(2001, 64)
    return result


class _SmallPictures(GroundingDinoImageProcessor):
    """Scales like the tiny folders do, when nothing else is said."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**({"size": {"shortest_edge": 64, "longest_edge": 107}} | settings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_grounding_dino(tmp_path_factory.mktemp("tiny"), ["cat", "dog"], seed=3)


@pytest.fixture(scope="module")
def original(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a release, the tokenizer beside it."""
    path = tmp_path_factory.mktemp("original") / "groundingdino_swint_ogc.pth"
    torch.save({"model": original_layout(read_weights(folder / "model.safetensors"))}, path)
    (path.parent / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    return path


@pytest.fixture
def _tiny_config(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GroundingDinoConfig.from_dict(read_json(folder / "config.json"))
    monkeypatch.setattr(loading, "original_config", lambda _model: config)
    monkeypatch.setattr(loading, "GroundingDinoImageProcessor", _SmallPictures)


def test_names_of_the_authors_are_theirs(original: Path):
    names = set(read_weights(original))
    assert {
        "module.backbone.0.layers.2.blocks.0.attn.qkv.weight",
        "module.transformer.encoder.fusion_layers.0.attn.values_l_proj.bias",
        "module.transformer.encoder.text_layers.0.self_attn.in_proj_weight",
        "module.transformer.encoder.layers.0.linear1.weight",
        "module.transformer.decoder.layers.1.catext_norm.bias",
        "module.transformer.decoder.layers.0.ca_text.in_proj_bias",
        "module.transformer.decoder.layers.0.cross_attn.sampling_offsets.weight",
        "module.transformer.enc_output_norm.weight",
        "module.feat_map.weight",
    } <= names
    assert not [name for name in names if "model." in name]


def test_every_tensor_comes_back_under_its_name(folder: Path, original: Path):
    saved = read_weights(folder / "model.safetensors")
    renamed = renamed_tensors(read_weights(original))
    wanted = {key for key in saved if ".swin.layernorm" not in key}
    assert wanted <= set(renamed)
    assert all(torch.equal(renamed[key], saved[key]) for key in wanted)
    # Saved once by transformers, once per place by the authors.
    assert all("model.decoder.bbox_embed." in key for key in set(renamed) - wanted)


@pytest.mark.usefixtures("_tiny_config")
def test_an_original_checkpoint_finds_what_the_folder_finds(folder: Path, original: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    (mine,) = load_grounding_dino(SETTINGS, original, CPU).detect([pixels], [["cat", "dog"]], 0.01)
    (theirs,) = load_grounding_dino(SETTINGS, folder, CPU).detect([pixels], [["cat", "dog"]], 0.01)
    assert len(mine) > 0
    assert torch.equal(mine.boxes, theirs.boxes)
    assert torch.equal(mine.scores, theirs.scores)
    assert torch.equal(mine.phrases, theirs.phrases)


@pytest.mark.usefixtures("_tiny_config")
def test_the_tokenizer_may_lie_in_a_folder_of_its_name(folder: Path, original: Path, tmp_path: Path):
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased" / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    assert load_grounding_dino(SETTINGS, path, CPU).name.startswith("grounding-dino-tiny@")


@pytest.mark.usefixtures("_tiny_config")
@pytest.mark.parametrize("change", ["lacks", "surplus", "flat", "uneven"])
def test_another_networks_checkpoint_does_not_fit(original: Path, tmp_path: Path, change: str):
    tensors = read_weights(original)
    joint = "module.transformer.decoder.layers.0.self_attn.in_proj_weight"
    if change == "lacks":
        del tensors["module.feat_map.weight"]
    elif change == "surplus":
        tensors["module.head.weight"] = torch.zeros(2)
    else:
        tensors[joint] = torch.tensor(1.0) if change == "flat" else tensors[joint][:-1]
    torch.save({"model": tensors}, tmp_path / "other.pth")
    (tmp_path / "vocab.txt").write_bytes((original.parent / "vocab.txt").read_bytes())
    with pytest.raises(ModelError) as caught:
        load_grounding_dino(SETTINGS, tmp_path / "other.pth", CPU)
    assert caught.value.code == "E207"


def test_a_checkpoint_needs_its_tokenizer(original: Path, tmp_path: Path):
    path = tmp_path / original.name
    path.write_bytes(original.read_bytes())
    with pytest.raises(ModelError, match="bert-base-uncased") as caught:
        load_grounding_dino(SETTINGS, path, CPU)
    assert caught.value.code == "E202"
    assert "vocab.txt" in caught.value.why


def test_only_the_released_sizes_are_known(original: Path):
    with pytest.raises(ModelError) as caught:
        load_grounding_dino(DetectorSettings("grounding_dino", "my/detector"), original, CPU)
    assert caught.value.code == "E214"


@pytest.mark.slow
@pytest.mark.parametrize("model", ORIGINAL_MODELS)
def test_released_sizes_come_back_under_their_names(model: str):
    config = original_config(model)
    with torch.device("meta"):
        network = GroundingDinoForObjectDetection(config)
    shapes = {key: value for key, value in network.state_dict().items() if "swin" not in key}
    # What the library's files call Swin's parts differs from its modules; the rest must be there.
    renamed = renamed_tensors(original_layout(shapes))
    assert {key: value.shape for key, value in renamed.items() if "swin" not in key} == {
        key: value.shape for key, value in shapes.items()
    }
