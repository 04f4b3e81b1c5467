"""What killed programs leave beside databases: found when it is surely dead, told, and removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retclip.shards import Database
from retclip.shards.copying import copy_database, merge_databases, new_database
from retclip.shards.durable import STAGING_PREFIX, new_id
from retclip.shards.parquet_exchange import export_parquet, import_parquet
from retclip.shards.retention import collect
from retclip.shards.sweep import abandoned

DIE = """
import os, signal, sys
from pathlib import Path
from retclip.shards import Database, copying
copying.write_thumbnails = copying.Transaction.commit = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
copying.copy_database(Database.open(Path(sys.argv[1])), Path(sys.argv[2]), [], "child")
"""


def age(path):
    for each in (*path.rglob("*"), path):
        os.utime(each, (0, 0))


@pytest.fixture
def killed(database):
    """What a copy left that was killed before its commit; written just now."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-c", DIE, str(database.path), str(database.path.with_name("copy.retdb"))]
    done = subprocess.run(command, env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (left,) = database.path.parent.glob(".staging-*")
    return left


def test_a_killed_copy_is_spared_for_an_hour_and_then_collected(database, killed):
    folder = database.path.parent
    assert abandoned(folder) == []
    assert collect(database.path, 5).leftovers == ()
    age(killed)
    assert abandoned(folder) == [killed]
    size = sum(path.stat().st_size for path in killed.rglob("*") if path.is_file())
    told = collect(database.path, 5, dry_run=True)
    assert (told.leftovers, told.bytes) == ((killed.name,), size)
    assert killed.exists()
    assert collect(database.path, 5) == told
    assert [path.name for path in folder.iterdir()] == [database.path.name]


@pytest.mark.parametrize("command", ["copy", "merge", "import", "export"])
def test_the_next_command_of_the_kind_removes_it(database, killed, tmp_path_factory, command):
    folder, elsewhere = database.path.parent, tmp_path_factory.mktemp("elsewhere")
    export_parquet(database, elsewhere / "rows.parquet")
    run = {
        "copy": lambda: copy_database(database, folder / "new", [], "tests"),
        "merge": lambda: merge_databases(database, database, folder / "new", "tests"),
        "import": lambda: import_parquet(elsewhere / "rows.parquet", folder / "new", "tests"),
        "export": lambda: export_parquet(database, folder / "new"),
    }[command]
    age(killed)
    run()
    assert sorted(path.name for path in folder.iterdir()) == ["new", database.path.name]


def test_who_holds_the_lock_is_alive_however_old_the_files_are(database):
    """A clock that jumps, or a pause of the machine, must not cost a copy that is being made."""
    folder = database.path.parent
    with new_database(folder / "new.retdb", database) as staged, staged.write("copy", "tests") as transaction:
        age(staged.path)
        assert abandoned(folder) == []
        copy_database(database, folder / "other.retdb", [], "tests")
        transaction.set_transform("centre")
        transaction.commit()
    assert Database.open(folder / "new.retdb").transform == "centre"


def test_names_that_no_program_of_ours_gives_are_spared(database):
    folder = database.path.parent
    for name in (".staging-mine", f".staging-{'x' * 32}", f"staging-{'0' * 32}"):
        (folder / name).mkdir()
        age(folder / name)
    (folder / f".staging-{'a' * 32}").symlink_to(database.path)
    os.utime(folder / f".staging-{'a' * 32}", (0, 0), follow_symlinks=False)
    assert abandoned(folder) == []


def test_what_another_user_left_is_spared(killed, monkeypatch):
    """In a shared folder it could not be removed, and every copy would fail."""
    age(killed)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert abandoned(killed.parent) == []


def test_a_file_that_an_export_left_goes_too(database):
    left = database.path.with_name(STAGING_PREFIX + new_id())
    left.write_bytes(b"PAR1")
    assert abandoned(left.parent) == []
    age(left)
    assert collect(database.path, 5).leftovers == (left.name,)
    assert not left.exists()


def test_what_gets_its_name_while_we_look_is_not_abandoned(database, monkeypatch):
    staged = database.path.with_name(STAGING_PREFIX + new_id())
    staged.mkdir()
    age(staged)
    real = Path.glob

    def renamed(path, pattern):
        found = list(real(path, pattern))
        if staged in found:
            staged.rename(database.path.with_name("named.retdb"))
        return iter(found)

    monkeypatch.setattr(Path, "glob", renamed)
    assert abandoned(database.path.parent) == []
    assert not staged.exists()
