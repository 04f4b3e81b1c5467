"""The networks that are part of the package: there, small, and found wherever the user stands."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from retclip.adapters.model_files import find_models
from retclip.assembly import load_model
from retclip.presets import load_preset

MOST_BYTES = 15_000_000


def test_the_suite_is_small() -> None:
    weights = list(Path(str(files("retclip.presets"))).rglob("*.safetensors"))
    assert len(weights) == 3
    assert sum(path.stat().st_size for path in weights) <= MOST_BYTES


def test_all_networks_are_found_in_the_package_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoy = tmp_path / "tiny" / "detector"
    decoy.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETCLIP_OFFLINE", "1")
    preset = load_preset("tiny")
    found = find_models(preset)
    assert {place.origin for place in found.values()} == {"package"}
    for place in found.values():
        assert load_model(preset, place, "cpu") is not None


def test_the_card_tells_what_the_networks_are() -> None:
    card = (files("retclip.presets") / "tiny" / "README.md").read_text(encoding="utf-8")
    for word in ("Data", "Steps", "Licence", "Figures", "scripts.train_tiny"):
        assert word in card
