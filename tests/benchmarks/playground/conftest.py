"""The playground benchmark in miniature: networks with random weights and one small world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.playground.world import VOCABULARY, World
from retclip.presets import load_preset
from retclip.segmenters.fcclip.variants import build_fcclip
from tests.adapters.tiny_models import write_tiny_grounding_dino
from tests.adapters.tiny_sam import write_tiny_sam
from tests.segmenters.conftest import lively

PRESET = """
[encoder]
library = "fcclip"
model = "tiny"
weights = "fcclip.safetensors"
short_side = 64
long_side = 96

[detector]
library = "grounding_dino"
model = "tiny"
weights = "detector"

[masker]
library = "sam"
model = "tiny"
weights = "masker"

[proposals]
kind = "fcclip"
training_classes = "@playground-seen"
"""
CLASSES = len(VOCABULARY)


@pytest.fixture(scope="session")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    weights = lively(build_fcclip("tiny")).state_dict()
    save_file({name: value.clone() for name, value in weights.items()}, folder / "fcclip.safetensors")
    write_tiny_grounding_dino(folder / "detector", [word for name in VOCABULARY.names for word in name.split()])
    write_tiny_sam(folder / "masker", 0)
    (folder / "random.toml").write_text(PRESET)
    return folder / "random.toml"


@pytest.fixture(scope="session")
def world(preset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One seed with 12 scenes and 2 pictures, drawn and built."""
    made = World(tmp_path_factory.mktemp("world"), load_preset(str(preset_file)), 5, 12, 2)
    made.make()
    return made


def random_counts(seed: int, pictures: int = 6) -> np.ndarray[Any, np.dtype[np.float64]]:
    random = np.random.default_rng(seed)
    table = random.integers(0, 4, (pictures, 4, CLASSES)).astype(np.float64)
    table[:, 0] = table[:, 1] * random.uniform(0.5, 1, (pictures, CLASSES))
    return table * (random.random((pictures, 1, CLASSES)) < 0.3)
