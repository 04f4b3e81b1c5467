"""What a weights file's first bytes and length tell."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from retclip.core.errors import ModelError
from retclip.core.weight_files import (
    check_signature,
    check_weights_file,
    file_sha256,
    has_signature,
    tensor_shapes,
    unfinished_files,
)

TENSORS = {"a.weight": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float16), "c": np.array(1.0)}
SHAPES = {"a.weight": (2, 3), "b": (4,), "c": ()}


def refused(path: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        check_weights_file(path)
    assert str(path) in caught.value.what
    assert caught.value.why
    return caught.value


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / "w.safetensors", metadata={"format": "pt"})
    return tmp_path / "w.safetensors"


def test_shapes_are_read_from_the_header_alone(whole: Path) -> None:
    check_weights_file(whole)
    assert tensor_shapes(whole) == SHAPES
    assert file_sha256(whole) == hashlib.sha256(whole.read_bytes()).hexdigest()


def test_any_cut_of_a_file_is_noticed(whole: Path) -> None:
    data = whole.read_bytes()
    for length in range(len(data)):
        whole.write_bytes(data[:length])
        assert refused(whole).code == "E202"
    whole.write_bytes(data + b"\0")
    assert refused(whole).code == "E202"


HEADERS = [
    b"[]", b"{}x", b'{"a": 1}', b'{"a": {"shape": [1]}}', b'{"a": {"shape": "x", "data_offsets": [0, 4]}}',
    b'{"a": {"shape": [1], "data_offsets": 3}}', b"[" * 5000, b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_headers_that_are_none_are_refused(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert refused(path).code == "E202"


def test_a_header_of_impossible_length_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "header" in refused(path).why


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_politely(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(data)
    assert refused(path).code == "E202"


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 374979376\n"


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize(("data", "word"), [(POINTER, "LFS"), (b"\n<!DOCTYPE html><html>", "page"), (b"", "empty")])
def test_stand_ins_are_called_by_their_name(tmp_path: Path, ending: str, data: bytes, word: str) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(data)
    error = refused(path)
    assert (error.code, word in error.why) == ("E202", True)


def test_half_a_pytorch_file_is_noticed_without_torch_loading_it(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1000)}, path)
    check_weights_file(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert refused(path).code == "E202"


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_programs_with_weights_are_refused(tmp_path: Path) -> None:
    """OpenAI published CLIP as TorchScript."""
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    error = refused(path)
    assert (error.code, "TorchScript" in error.why) == ("E204", True)


def test_unfinished_downloads_are_found_where_tools_leave_them(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").touch()
    (tmp_path / "config.json").touch()
    hidden = tmp_path / ".cache" / "huggingface" / "download"
    hidden.mkdir(parents=True)
    (hidden / "abc.incomplete").touch()
    (hidden / "config.json.metadata").touch()
    assert {file.name for file in unfinished_files(tmp_path)} == {"abc.incomplete", "model.safetensors.part"}
    assert unfinished_files(tmp_path / "nowhere") == []


def test_signatures_compare_whole_parts_of_names() -> None:
    assert has_signature(SHAPES, {"weight": (2, 3)})
    assert has_signature(SHAPES, {"a.weight": (2, 3), "absent": (9,)})
    assert not has_signature(SHAPES, {"eight": (2, 3)})
    assert not has_signature(SHAPES, {"a.weight": (3, 2)})


def test_another_network_is_refused_with_what_differs(whole: Path, tmp_path: Path) -> None:
    check_signature(whole, {"a.weight": (2, 3)}, "net")
    check_signature(whole, {}, "net")
    for signature, shown in (({"b": (5,)}, "b (4,) instead of (5,)"), ({"z": (1,)}, "missing z")):
        with pytest.raises(ModelError, match="does not fit 'net'") as caught:
            check_signature(whole, signature, "net")
        assert (caught.value.code, caught.value.why) == ("E207", shown)
    other = tmp_path / "w.pth"
    other.write_bytes(json.dumps({}).encode())
    check_signature(other, {"z": (1,)}, "net")
