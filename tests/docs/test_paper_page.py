"""Commands that need released weights start, and say precisely what they lack: docs/paper.md and the README."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from retclip.cli.main import main
from retclip.cli.options import change_settings, proposed
from retclip.presets import load_preset

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "paper.md"
EVALUATIONS = re.findall(r"`(retclip eval [^`]+)`", PAGE.read_text())
PREPARATIONS = re.findall(r"^    (retclip .+)$", PAGE.read_text(), flags=re.MULTILINE)
MAIN_JOB = re.search(r"## The main job.*?```shell\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)

WEIGHTS = {
    "paper-tf-b": "timm/vit_base_patch16_clip_224.openai",
    "paper-tf-l": "timm/vit_large_patch14_clip_224.openai",
    "paper-rn50x64": "fcclip_cocopan_r50x64.pth",
    "paper-convnext-large": "fcclip_cocopan.pth",
}


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database, no data, no weights, no network."""
    for name in ("RETCLIP_DATA", "RETCLIP_MODELS_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("RETCLIP_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


def words_of(command: str, tmp_path: Path) -> list[str]:
    text = command.replace("$RETCLIP_DATA", str(tmp_path / "RETCLIP_DATA"))
    return shlex.split(text.replace("$RETCLIP_MODELS_DIR", str(tmp_path / "RETCLIP_MODELS_DIR")))[1:]


def value_of(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_every_row_of_the_paper_has_a_command() -> None:
    assert len(EVALUATIONS) == 6 + 6 + 6 + 14


@pytest.mark.parametrize("command", EVALUATIONS)
def test_an_evaluation_names_the_set_the_database_and_the_weights_it_lacks(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(command, tmp_path)
    assert main(words) == 3
    error = capsys.readouterr().err
    assert "ade20k-panoptic" in error
    assert f"There is no database '{value_of(words, '--db')}'" in error
    weights = {
        "paper-tf-b": "vit_base_patch16",
        "paper-tf-l": "vit_large_patch14",
        "paper-rn50x64": "fcclip_cocopan_r50x64",
    }
    assert weights.get(value_of(words, "--preset"), "fcclip_cocopan.pth") in error
    asks_masker = "sam-grid" in words or (value_of(words, "--preset").startswith("paper-tf") and "given" not in words)
    assert ("facebook/sam-vit-base" in error) == asks_masker


@pytest.mark.parametrize("command", EVALUATIONS)
def test_the_settings_of_a_row_exist(command: str, tmp_path: Path) -> None:
    words = words_of(command, tmp_path)
    changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
    preset = change_settings(load_preset(value_of(words, "--preset")), changes)
    kind = value_of(words, "--proposals") if "--proposals" in words else "preset"
    assert proposed(preset, kind).proposals.kind in ("fcclip", "gdino-sam", "sam-grid", "given")


def test_the_main_job_of_the_readme_is_tried_too() -> None:
    assert MAIN_JOB is not None
    assert len(MAIN_JOB[1].splitlines()) == 3


@pytest.mark.parametrize("command", [*PREPARATIONS, *(MAIN_JOB[1].splitlines() if MAIN_JOB else ())])
def test_a_preparation_says_what_it_lacks(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words_of(command, tmp_path)) in (3, 4, 5)
    error = capsys.readouterr().err
    assert re.search(r"error E\d{3} .+\n  why: .+\n(       .+\n)*  fix: .+", error), error
