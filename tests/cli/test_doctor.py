"""`retclip doctor`: what is missing, and what would be slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from retclip.adapters.model_files import Found
from retclip.presets import available_presets, load_preset
from retclip.presets.model_cards import models_of
from tests.cli.conftest import Run


def test_doctor_judges_what_it_was_asked(home: Path, workshop: Path, run: Run, preset: Path, tmp_path: Path) -> None:
    fine = run("doctor", "--db", "pets", "--models", preset, "--json")
    assert fine.code == 0
    assert {finding["state"] for finding in fine.json} <= {"ok", "warn"}
    assert any("pets" in finding["what"] and "12 segments" in finding["what"] for finding in fine.json)
    assert run("doctor", "--db", "cats", "--json").code == 5
    (tmp_path / "lonely.toml").write_text(preset.read_text())
    lonely = run("doctor", "--models", tmp_path / "lonely.toml", "--json")
    assert lonely.code == 4
    assert any(finding["state"] == "FAIL" and "RETCLIP_MODELS_DIR" in finding["fix"] for finding in lonely.json)
    assert "pets" in run("doctor").out


def test_doctor_says_all_that_every_preset_lacks(
    home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    findings = {finding["what"].split(":")[0]: finding for finding in run("doctor", "--json").json}
    assert findings["preset tiny"]["state"] == "ok", "its weights are part of the package"
    for name in set(available_presets()) - {"tiny"}:
        finding = findings[f"preset {name}"]
        assert finding["state"] == "warn"
        assert all(needed.name in finding["what"] for needed in models_of(load_preset(name)))
        assert f"retclip models fetch {name}" in finding["fix"]
    asked = run("doctor", "--models", "balanced", "--json")
    assert (asked.code, [f["state"] for f in asked.json if f["what"].startswith("preset")]) == (4, ["FAIL"])


def test_doctor_warns_of_networks_that_take_minutes_without_a_gpu(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retclip.adapters.model_files.find_model", lambda needed: Found(needed, home, home, "given"))
    for cuda, state in ((False, "warn"), (True, "ok")):
        monkeypatch.setattr("torch.cuda.is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        found = {f["what"].split(":")[0]: f for f in run("doctor", "--json").json}
        assert found["preset balanced"]["state"] == state
        assert found["preset cpu-lite"]["state"] == found["preset cpu"]["state"] == "ok"


def test_doctor_names_libraries_that_are_too_old(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retclip.adapters.libraries._requirements", lambda: {"timm": ">=99.0"})
    outcome = run("doctor", "--json")
    assert outcome.code == 4
    old = [finding for finding in outcome.json if finding["state"] == "FAIL"]
    assert len(old) == 1
    assert (old[0]["what"].startswith("E206 timm"), old[0]["fix"]) == (True, "pip install -U 'timm>=99.0'")
