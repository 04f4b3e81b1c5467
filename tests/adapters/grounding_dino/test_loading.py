import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retclip.adapters.grounding_dino import count_prompts, load_grounding_dino
from retclip.core.errors import ModelError
from retclip.core.weights import read_weights
from retclip.presets.networks import DetectorSettings
from retclip.training.word_pieces import write_word_pieces
from tests.adapters.tiny_models import write_tiny_grounding_dino

CPU = torch.device("cpu")
SETTINGS = DetectorSettings("grounding_dino")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_grounding_dino(tmp_path_factory.mktemp("whole"), ["cat"])


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "detector"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("the network was asked for something")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def code_of(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_grounding_dino(SETTINGS, folder, CPU)
    assert str(folder) in caught.value.what or str(folder) in caught.value.why
    assert caught.value.fix
    return caught.value.code


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_not_there(tmp_path: Path):
    assert code_of(tmp_path / "nowhere") == "E201"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["config.json"], "config.json"),
        (["model.safetensors"], "model.safetensors"),
        (["preprocessor_config.json"], "preprocessor_config.json or processor_config.json"),
        (["tokenizer.json", "vocab.txt"], "tokenizer.json or vocab.txt"),
    ],
)
def test_a_missing_file_is_named(folder: Path, names: list[str], said: str):
    for name in names:
        (folder / name).unlink()
    with pytest.raises(ModelError, match="lacks files") as caught:
        load_grounding_dino(SETTINGS, folder, CPU)
    assert caught.value.code == "E202"
    assert said in caught.value.why


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt"])
def test_one_tokenizer_file_is_enough(folder: Path, whole: Path, name: str):
    (folder / name).unlink()
    assert load_grounding_dino(SETTINGS, folder, CPU).name == load_grounding_dino(SETTINGS, whole, CPU).name


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"])
def test_half_a_file_is_damaged(folder: Path, name: str):
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(folder) == "E202"


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "owlv2"},
        {"backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50", "use_pretrained_backbone": True}},
        {"backbone_config": "microsoft/swin-tiny"},
        {"text_config": {"model_type": "roberta"}},
        {"num_queries": "many"},
        {"d_model": None},
    ],
)
def test_networks_of_other_kinds(folder: Path, changes: dict[str, object]):
    edit_config(folder, **changes)
    assert code_of(folder) == "E211"


@pytest.mark.parametrize("changes", [{"d_model": 128}, {"decoder_layers": 3}, {"encoder_attention_heads": 3}])
def test_a_config_that_does_not_fit_the_weights(folder: Path, changes: dict[str, object]):
    edit_config(folder, **changes)
    assert code_of(folder) == "E207"


def test_unknown_entries_of_older_releases_are_harmless(folder: Path):
    edit_config(folder, backbone=None, use_timm_backbone=False, use_pretrained_backbone=False, torch_dtype="float32")
    load_grounding_dino(SETTINGS, folder, CPU)


@pytest.mark.parametrize("change", ["lacks", "surplus", "reshaped"])
def test_weights_of_another_network(folder: Path, change: str):
    path = folder / "model.safetensors"
    tensors = read_weights(path)
    if change == "lacks":
        del tensors["model.enc_output.bias"]
    else:
        tensors["model.enc_output.bias" if change == "reshaped" else "head"] = torch.zeros(7)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelError, match="does not fit") as caught:
        load_grounding_dino(SETTINGS, folder, CPU)
    assert caught.value.code == "E207"
    assert ("head" if change == "surplus" else "model.enc_output.bias") in caught.value.why


def test_a_pickle_in_place_of_weights_is_not_run(folder: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"model": {"a": Trap()}}, folder / "model.safetensors")
    assert code_of(folder) == "E202"
    original = tmp_path / "groundingdino_swint_ogc.pth"
    original.write_bytes((folder / "model.safetensors").read_bytes())
    shutil.copy(folder / "vocab.txt", tmp_path)
    with pytest.raises(ModelError) as caught:
        load_grounding_dino(DetectorSettings("grounding_dino", "x/grounding-dino-tiny"), original, CPU)
    assert caught.value.code == "E204"
    assert not (tmp_path / "sprung").exists()


def test_another_tokenizer_is_refused(folder: Path):
    (folder / "tokenizer.json").unlink()
    lines = (folder / "vocab.txt").read_text().splitlines()
    (folder / "vocab.txt").write_text("\n".join(lines[:1000] + lines[1001:]))
    assert code_of(folder) == "E212"
    write_word_pieces(folder / "vocab.txt", [f"word{index}" for index in range(100)])
    assert code_of(folder) == "E212"


def test_half_precision_is_read_as_float32(folder: Path, whole: Path):
    path = folder / "model.safetensors"
    save_file({key: value.half() for key, value in read_weights(path).items()}, path, {"format": "pt"})
    detector = load_grounding_dino(SETTINGS, folder, CPU)
    assert {value.dtype for value in detector._network._network.parameters()} == {torch.float32}
    assert detector.name != load_grounding_dino(SETTINGS, whole, CPU).name


def test_no_kernels_are_fetched():
    assert os.environ["USE_HUB_KERNELS"] == "0"


def test_prompts_are_counted_with_the_tokenizer_alone(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    names = [f"thing {number}" for number in range(200)]
    counts = [count_prompts(names[:most], SETTINGS, folder) for most in (0, 1, 200)]
    assert counts[:2] == [0, 1]
    assert counts[2] >= 200 * 2 / SETTINGS.chunk_tokens, "two words a name"
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError) as caught:
        count_prompts(names, SETTINGS, folder)
    assert caught.value.code == "E202"
