"""Builds in processes of their own: killed at any moment, and out of room."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retclip.shards import Database, verify
from tests.cli.conftest import save_photos

PHOTOS = 30
KILLS = 5


@pytest.fixture
def album(tmp_path: Path, workshop: Path) -> Path:
    """A folder with photos/, and preset.toml that takes one photo a unit at a size that leaves time to be killed."""
    text = (workshop / "preset.toml").read_text()
    (tmp_path / "preset.toml").write_text(
        text.replace("batch = 2", "batch = 1").replace("short_side = 64", "short_side = 192")
    )
    shutil.copy(workshop / "weights.safetensors", tmp_path)
    save_photos(tmp_path / "photos", ("red", "green", "blue"), count=PHOTOS // 3)
    return tmp_path


def words(album: Path, database: Path) -> list[str]:
    given: list[Any] = ["--source", "folder", "--root", album / "photos", "--preset", album / "preset.toml"]
    return ["index", "build", *map(str, given), "--use-boxes", "--device", "cpu", "--db", str(database)]


def start(arguments: list[str], before: str = "") -> subprocess.Popen[str]:
    code = f"{before}\nimport sys\nfrom retclip.cli.main import main\nsys.exit(main({arguments!r}))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition() and process.poll() is None:
        time.sleep(0.001)


def test_killed_five_times_a_build_still_ends_the_same(album: Path, home: Path, run: Any) -> None:
    whole = run(*words(album, album / "whole.retdb"), "--json").json
    database = album / "cut.retdb"
    points = sorted(random.Random(20261121).sample(range(1, PHOTOS - 8), KILLS))
    done = 0
    for point in points:
        process = start(words(album, database))
        wait_for(lambda point=point: len(list(database.glob("jobs/*/*.spill"))) >= point, process)
        process.kill()
        assert process.wait() == -9, process.communicate()[1]
        process.communicate()
        opened = Database.open(database)
        assert (opened.version, len(opened)) == (1, 0)
        assert verify(database, deep=True).ok
        kept = len(list(database.glob("jobs/*/*.spill")))
        assert kept >= max(point, done)
        done = kept
    resumed = run(*words(album, database), "--json").json
    assert resumed["resumed_units"] == done
    assert resumed["added"] == whole["added"] == PHOTOS
    assert resumed["content_hash"] == whole["content_hash"]
    assert verify(database, deep=True).ok
    assert not list(database.glob("jobs/*"))
    assert not list(database.glob("**/.staging-*"))


def test_without_room_it_leaves_with_seven_and_the_database_stays_whole(
    album: Path, workshop: Path, home: Path
) -> None:
    """Files may not grow beyond a limit: the system then refuses writes as a full disk does."""
    small_room = (
        "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))"
    )
    pets = home / "db" / "pets.retdb"
    before = Database.open(pets)
    process = start([*words(album, pets), "--preset", str(workshop / "preset.toml"), "--json"], small_room)
    out, err = process.communicate()
    assert process.returncode == 7, err
    assert out == ""
    assert '"code": "E401"' in err
    assert Database.open(pets).content_hash() == before.content_hash()
    assert verify(pets, deep=True).ok
