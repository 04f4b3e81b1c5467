"""Tiny CLIPs of every kind, and a home of their own for what is cached."""

import numpy as np
import pytest
import torch

from retclip.adapters.open_clip.loading import load_open_clip
from retclip.presets import EncoderSettings
from tests.adapters.tiny_clip import VISION, write_tiny_clip

SETTINGS = EncoderSettings(library="open_clip", model="tiny", weights="tiny", short_side=64, long_side=160)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """$RETCLIP_HOME of a test."""
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def settings():
    return SETTINGS


@pytest.fixture(params=VISION)
def kind(request):
    return request.param


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One folder per kind."""
    root = tmp_path_factory.mktemp("clips")
    return {kind: write_tiny_clip(root / kind, kind) for kind in VISION}


@pytest.fixture
def encoder(folders, kind, settings):
    return load_open_clip(settings, folders[kind], torch.device("cpu"))


@pytest.fixture
def pictures():
    """RGB pictures of coloured blocks in several sizes, one of them a single pixel and one a thin strip."""
    random = np.random.default_rng(0)
    sizes = [(48, 64), (48, 64), (64, 48), (50, 91), (1, 1), (3, 200)]
    return [
        np.kron(random.integers(0, 255, (-(-h // 8), -(-w // 8), 3)), np.ones((8, 8, 1))).astype(np.uint8)[:h, :w]
        for h, w in sizes
    ]
