"""`retclip models`, and what the paper's presets say without their weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from retclip.presets import available_presets, load_preset
from retclip.segmenters.fcclip.variants import build_fcclip
from tests.cli.conftest import Run, save_photos

PAPER = ("paper-convnext-large", "paper-rn50x64")


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A checkpoint in the released form."""
    path = tmp_path / "downloads" / "fcclip_cocopan.pth"
    path.parent.mkdir()
    torch.manual_seed(0)
    torch.save({"model": build_fcclip("tiny").state_dict(), "iteration": 7}, path)
    return path


def test_every_preset_is_listed_with_licence_and_place(tmp_path: Path, home: Path, run: Run) -> None:
    found = {entry["preset"]: entry for entry in run("models", "list", "--json").json}
    assert set(found) == set(available_presets())
    assert all(entry["license"] for entry in found.values())
    assert found["paper-convnext-large"]["found"] is None
    assert found["paper-convnext-large"]["model"] == "convnext-large"
    assert "missing: put fcclip_cocopan.pth into $RETCLIP_MODELS_DIR" in " ".join(run("models", "list").out.split())


def test_a_converted_file_stands_for_the_released_one(
    tmp_path: Path, home: Path, run: Run, released: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "fcclip_cocopan.safetensors"
    target.parent.mkdir()
    done = run("models", "convert", released, target, "--json")
    assert done.json["variant"] == "tiny"
    with safe_open(target, "pt") as file:
        assert set(file.keys()) == set(build_fcclip("tiny").state_dict())
    monkeypatch.setenv("RETCLIP_MODELS_DIR", str(target.parent))
    found = {entry["preset"]: entry["found"] for entry in run("models", "list", "--json").json}
    assert found["paper-convnext-large"] == str(target)
    assert found["paper-rn50x64"] is None


def test_nothing_is_written_over_and_other_endings_are_refused(tmp_path: Path, run: Run, released: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    for name in ("there.safetensors", "new.pth"):
        outcome = run("models", "convert", released, tmp_path / name, "--json")
        assert (outcome.code, outcome.error["code"]) == (3, "E179")
    assert (
        run("models", "convert", tmp_path / "absent.pth", tmp_path / "a.safetensors", "--json").error["code"] == "E201"
    )


def test_tensors_of_another_network_are_converted_and_said_to_fit_nothing(tmp_path: Path, run: Run) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    done = run("models", "convert", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "--json")
    assert done.json["variant"] is None
    assert "fit no FC-CLIP variant" in done.err


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_presets_name_the_file_they_lack(name: str, tmp_path: Path, home: Path, run: Run) -> None:
    weights = load_preset(name).encoder.weights
    photos = save_photos(tmp_path / "photos", ("red",), count=1)
    built = run("index", "build", "--source", "folder", "--root", photos, "--use-boxes", "--db", "new",
                "--preset", name, "--device", "cpu", "--json")  # fmt: skip
    asked = run("segment", photos / "red", "--db", "pets", "--preset", name, "--device", "cpu", "--json")
    for outcome in (built, asked):
        assert (outcome.code, outcome.error["code"]) == (4, "E201")
        assert weights in outcome.error["hint"]


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_presets_have_the_paper_s_numbers(name: str) -> None:
    preset = load_preset(name)
    fusion, retrieval, merge = preset.fusion, preset.retrieval, preset.merge
    assert (fusion.mode, fusion.alpha, fusion.beta, fusion.gamma) == ("arithmetic", 0.4, 0.7, 0.3)
    assert (retrieval.k, retrieval.rule, retrieval.minmax, retrieval.aggregate) == (32, "minmax", "query", "max")
    assert (merge.rule, merge.score_threshold, merge.overlap_threshold) == ("argmax", 0.0, 0.8)
    assert (preset.encoder.short_side, preset.encoder.long_side) == (800, 1333)
    assert fusion.only_valid_masks == (name == "paper-rn50x64")
