"""Weights from files that nobody vouches for."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from retclip.adapters.timm_backbone import TimmEncoder, load_timm_encoder
from retclip.core.errors import ModelError
from retclip.core.weights import read_weights, tensors_sha256
from retclip.presets import EncoderSettings

CPU = torch.device("cpu")
MODEL = "test_efficientnet"  # timm's own miniature, 0.4 MB
SMALL = EncoderSettings(model=MODEL, weights="w", stride=32, short_side=64)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = timm.create_model(MODEL, num_classes=0)
    return model


@pytest.fixture(scope="module")
def tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return network.state_dict()


def load(path: Path) -> TimmEncoder:
    return load_timm_encoder(SMALL, path, CPU)


def test_both_file_formats_give_the_same_encoder(
    tmp_path: Path, network: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pth")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "nested.pth")
    spaces = {load(tmp_path / name).space for name in ("w.safetensors", "w.pth", "nested.pth")}
    assert spaces == {TimmEncoder(network, SMALL, CPU).space}


def test_missing_step_counters_are_forgiven(
    tmp_path: Path, network: torch.nn.Module, tensors: dict[str, torch.Tensor]
) -> None:
    few = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    assert len(few) < len(tensors)
    save_file(few, tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors").space == TimmEncoder(network, SMALL, CPU).space


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_truncated_files_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], keep: int, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    (save_file if ending == ".safetensors" else torch.save)(tensors, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.code == "E202"
    assert str(path) in caught.value.what


def test_weights_of_another_network_are_refused_with_examples(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=MODEL) as caught:
        load(tmp_path / "w.safetensors")
    assert caught.value.code == "E207"
    assert "missing" in caught.value.why
    assert "surplus" in caught.value.why


def test_reshaped_tensors_are_refused(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    key = next(iter(tensors))
    save_file({**tensors, key: torch.zeros(1, 2, 3, 4)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="does not fit") as caught:
        load(tmp_path / "w.safetensors")
    assert f"{key} (1, 2, 3, 4) instead of" in caught.value.why


class Bomb:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_code_objects_are_never_run(tmp_path: Path, tensors: dict[str, torch.Tensor], wrapped: bool, raw: bool) -> None:
    trap, path = tmp_path / "executed", tmp_path / "w.pth"
    value = {**tensors, "bomb": Bomb(trap)} if wrapped else Bomb(trap)
    path.write_bytes(pickle.dumps(value)) if raw else torch.save(value, path)
    with pytest.raises(ModelError, match=r"w\.pth was not loaded") as caught:
        load(path)
    assert caught.value.code == "E204"
    assert not trap.exists()


@pytest.mark.parametrize(
    "value",
    [[1, 2], torch.zeros(3), {}, {"state_dict": torch.zeros(3)}, {"state_dict": [1]}, {"a": 1}, {1: torch.ones(2)}],
)
def test_files_without_a_table_of_tensors_are_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "w.pth")
    assert caught.value.code in ("E204", "E207")


@settings(max_examples=60)
@given(st.binary(max_size=80), st.sampled_from([".pth", ".safetensors", ".bin"]))
def test_any_bytes_are_refused_politely(tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{ending}"
    path.write_bytes(data)
    with pytest.raises(ModelError):
        read_weights(path)


def test_digest_counts_names_types_shapes_and_values() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.float16), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.tensor([1.0000001])},
    ]
    assert len({tensors_sha256(table) for table in (base, *others)}) == 5
    assert tensors_sha256(dict(reversed(base.items()))) == tensors_sha256(base)
    strided = {"a": torch.zeros(3, 2).T, "b": torch.ones(2)[:1], "s": torch.tensor(4)}
    assert tensors_sha256(strided) == tensors_sha256({k: v.contiguous() for k, v in strided.items()})
