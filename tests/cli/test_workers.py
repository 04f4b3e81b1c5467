"""`--executor` and `--workers` of the index commands."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from retclip.shards import Database
from tests.cli.conftest import save_photos
from tests.indexer.crews import ended

Run = Any


def words(preset: Path, photos: Path, db: str, *more: Any) -> list[Any]:
    given = ["--source", "folder", "--root", photos, "--db", db, "--preset", preset, "--use-boxes", "--device", "cpu"]
    return ["index", "build", *given, "--json", *more]


@pytest.fixture
def one_thread() -> Any:
    """Sums round by the number of threads; one is what each worker gets, here too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread", "home")
def test_processes_build_what_a_serial_run_builds(workshop: Path, preset: Path, run: Run) -> None:
    serial = run(*words(preset, workshop / "photos", "one"))
    parallel = run(*words(preset, workshop / "photos", "two", "--executor", "processes", "--workers", 2))
    assert parallel.code == 0, parallel.err
    assert "index: 12/12 images" in parallel.err
    ours, theirs = serial.json, parallel.json
    for report in (ours, theirs):
        del report["seconds"], report["database"]
    assert ours == theirs
    assert ours["added"] == 12


@pytest.mark.usefixtures("home")
def test_wrong_options_are_told_before_anything_is_done(
    workshop: Path, preset: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = workshop / "photos"
    unknown = run(*words(preset, photos, "new", "--executor", "slurm"))
    assert (unknown.code, unknown.error["code"]) == (3, "E120")
    assert "serial, processes, ray" in unknown.error["why"]
    alone = run(*words(preset, photos, "new", "--workers", 2))
    assert (alone.code, alone.error["code"]) == (3, "E120")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = run(*words(preset, photos, "new", "--executor", "ray"))
    assert (missing.code, missing.error["code"]) == (3, "E331")
    assert missing.error["hint"] == 'pip install "retclip[ray]"'
    taught = run("index", "add-classes", "--db", "pets", "--images", photos, "--executor", "ray", "--json")
    assert taught.error["code"] == "E331"


def test_ctrl_c_finishes_what_is_running_and_leaves_no_process(workshop: Path, home: Path, tmp_path: Path) -> None:
    text = (workshop / "preset.toml").read_text().replace("batch = 2", "batch = 1")
    (tmp_path / "preset.toml").write_text(text)
    shutil.copy(workshop / "weights.safetensors", tmp_path)
    photos = save_photos(tmp_path / "photos", ("red", "green"), count=200)
    database = tmp_path / "cut.retdb"
    given = words(tmp_path / "preset.toml", photos, str(database), "--executor", "processes", "--workers", "2")
    code = f"import sys\nfrom retclip.cli.main import main\nsys.exit(main({list(map(str, given))!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(database.glob("jobs/*/*.spill")) and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group gets it
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert "what was written is kept" in err
    assert ended(process.pid)
    kept = len(list(database.glob("jobs/*/*.spill")))
    assert 0 < kept < 400
    assert Database.open(database).version == 1
