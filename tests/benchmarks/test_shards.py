"""A slice of the kills and of the readers beside a writer; the whole runs are in benchmarks/shards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "shards"


def run(script: str, *arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    text = run("kill.py", "--kills", 10, "--seed", 1, "--out", tmp_path / "kill.json")
    assert "nothing lost" in text
    assert (tmp_path / "kill.json").stat().st_size > 100


def test_readers_beside_a_writer_see_whole_versions(tmp_path: Path) -> None:
    text = run("readers.py", "--minutes", 1 / 6, "--readers", 8, "--out", tmp_path / "readers.json")
    assert "every answer was that of one version" in text
