"""A network with random weights, photos of three colours, and a database of them, made once."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from retclip.cli.main import main
from tests.fakes import COLOURS

# Untrained weights still tell colours apart: a random projection keeps distances.
PRESET = """
[encoder]
model = "test_efficientnet"
weights = "weights.safetensors"
layers = ["blocks.1", "blocks.3"]
stride = 16
short_side = 64
long_side = 256

[index]
batch = 2
key_transform = "centre"
thumbnails = 32

[retrieval]
rule = "voting"

[merge]
rule = "greedy"
overlap_threshold = 0.5
"""


@dataclass(frozen=True)
class Outcome:
    """What a command did: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        """The JSON error on the last line of stderr."""
        error: dict[str, str] = json.loads(self.err.strip().splitlines()[-1])["error"]
        return error


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run one command in this process."""

    def run(*words: object) -> Outcome:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def textured(colour: str, seed: int, height: int = 48, width: int = 64) -> npt.NDArray[np.uint8]:
    """A colour with a little grain, so that no two photos are the same file."""
    grain = np.random.default_rng(seed).integers(-12, 13, (height, width, 3))
    return np.clip(np.array(COLOURS[colour]) + grain, 0, 255).astype(np.uint8)


def save_bomb(path: Path) -> None:
    """A PNG of a few bytes that says that it has 30,000 x 30,000 pixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def save_photos(folder: Path, colours: tuple[str, ...], count: int = 4, first: int = 0) -> Path:
    for index, colour in enumerate(colours):
        (folder / colour).mkdir(parents=True)
        for number in range(first, first + count):
            Image.fromarray(textured(colour, 100 * index + number)).save(folder / colour / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """preset.toml with its weights, photos/ with three classes, street.png (red, blue), home/ with database `pets`."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("workshop")
    torch.manual_seed(0)
    save_file(timm.create_model("test_efficientnet", num_classes=0).state_dict(), folder / "weights.safetensors")
    (folder / "preset.toml").write_text(PRESET)
    save_photos(folder / "photos", ("red", "green", "blue"))
    street = np.concatenate([textured("red", 7, 96, 96), textured("blue", 8, 96, 96)], axis=1)
    Image.fromarray(street).save(folder / "street.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETCLIP_HOME", str(folder / "home"))
        words = ["--source", "folder", "--root", folder / "photos", "--db", "pets", "--preset", folder / "preset.toml"]
        assert main(["index", "build", *map(str, words), "--use-boxes", "--quiet", "--device", "cpu"]) == 0
    return folder


@pytest.fixture
def home(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A RETCLIP_HOME of the test's own with a copy of the database `pets`."""
    shutil.copytree(workshop / "home", tmp_path / "home")
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RETCLIP_DATA", raising=False)
    monkeypatch.delenv("RETCLIP_MODELS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def preset(workshop: Path) -> Path:
    return workshop / "preset.toml"


@pytest.fixture
def street(workshop: Path) -> Path:
    return workshop / "street.png"
