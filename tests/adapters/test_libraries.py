"""Versions of model libraries, against those asked for."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from packaging.requirements import Requirement

from retclip.adapters import libraries as module
from retclip.adapters.libraries import Library, check_library, libraries
from retclip.core.errors import ModelError
from retclip.presets import DetectorSettings, EncoderSettings, MaskerSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("installed", "fits"), [("5.0", True), ("5.23.0", True), ("6.0.dev1", True), ("4.41.0", False), ("", False)]
)
def test_versions_are_compared_as_versions(installed: str, fits: bool) -> None:
    library = Library("transformers", installed, ">=5.0")
    assert library.fits == fits
    assert library.remedy == "pip install -U 'transformers>=5.0'"
    assert ("not installed" in library.problem) == (not installed)


def test_an_old_or_absent_library_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_requirements", lambda: {"transformers": ">=5.0", "timm": ">=1.0.9"})
    monkeypatch.setattr(module, "version", lambda name: {"transformers": "4.41.0", "timm": "1.0.9"}[name])
    check_library("timm")
    for library in ("sam", "sam2", "grounding_dino"):
        with pytest.raises(ModelError, match=r"transformers 4\.41\.0 is too old") as caught:
            check_library(library)
        assert (caught.value.code, "pip install" in caught.value.fix) == ("E206", True)

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    with pytest.raises(ModelError, match="timm is not installed"):
        check_library("timm")


def test_every_library_of_the_settings_is_known_and_required() -> None:
    required = {
        Requirement(line).name
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    for settings in (EncoderSettings, DetectorSettings, MaskerSettings):
        for library in set(get_args(get_type_hints(settings)["library"])) - {"none"}:
            assert module._DISTRIBUTIONS[library] in required


def test_what_runs_these_tests_is_recent_enough() -> None:
    found = list(libraries())
    assert {"torch", "timm"} <= {library.name for library in found}
    assert [library.problem for library in found if not library.fits] == []
