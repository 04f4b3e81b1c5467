"""Every command of docs/rescore.md works, in order."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import home, run, workshop  # noqa: F401 - fixtures

PAGE = Path(__file__).resolve().parents[2] / "docs" / "rescore.md"
COMMANDS = re.findall(r"^\$ (retclip .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def test_every_command_of_the_page_works(
    home: Path,  # noqa: F811
    workshop: Path,  # noqa: F811
    run,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path.cwd() / "out"
    (Path.cwd() / "photos").symlink_to(workshop / "photos")
    assert len(COMMANDS) == 5
    outcomes = [run(*shlex.split(command)[1:]) for command in COMMANDS]
    assert [outcome.code for outcome in outcomes] == [0] * 5
    assert "under pets@3, 0 written" in outcomes[2].err
    assert "under pets@3, 2 written" in outcomes[3].err
    assert "under pets@2, 3 written" in outcomes[4].err
    assert json.loads((out / "run.json").read_text())["run"]["retrieval"]["k"] == 4
