"""What docs/databases.md shows is run, in order, on the small database that it names."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from retclip.cli.main import main
from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment
from retclip.shards import Database

ROOT = Path(__file__).resolve().parents[2]
SPACE = FeatureSpace("test/encoder", "0" * 64, 8, ("last",), 8, 64, 64, (0.5,) * 3, (0.25,) * 3, "", "mean")


def make_pets(path: Path) -> None:
    """Three classes of twelve segments in as many pictures."""
    names = ("red", "green", "blue")
    segments = [
        StoredSegment(
            n + 1, names[n % 3], names[n % 3], "folder", 1.0, "folder", "", f"{n}", "u", f"{n + 1:064x}", 9, 9,
            (0, 0, 1, 1), 1, b"m", "", "", 0, 0, "", False, True, "", "",
        )
        for n in range(36)
    ]  # fmt: skip
    vectors = np.eye(8)[[n % 3 for n in range(36)]] + 0.1 * np.random.default_rng(0).normal(size=(36, 8))
    with Database.create(path, SPACE, {}).write("build", "tests") as transaction:
        transaction.add(segments, vectors)
        transaction.commit()


def test_every_command_of_the_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_pets(tmp_path / "db" / "pets.retdb")
    blocks = re.findall(
        r"```console\n(.*?)```", (ROOT / "docs" / "databases.md").read_text(encoding="utf-8"), re.DOTALL
    )
    commands = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    assert len(commands) >= 12
    for command in commands:
        words = shlex.split(command)
        assert words[0] == "retclip"
        assert main(words[1:]) == 0, f"{command}\n{capsys.readouterr().err}"
    assert (tmp_path / "health.html").is_file()
