"""A damaged newest version: an older one is served and says so, and nothing is written on top of it by accident."""

import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, open_database
from retclip.shards.manifest import manifest_path, versions


@pytest.fixture
def torn(database):
    """Path of a database with versions 1 to 3, the last of which has a changed byte."""
    with database.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 0"])
        transaction.commit()
    path = manifest_path(database.path, 3)
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    return database.path


def test_whoever_opens_it_is_told_which_version_is_served(torn, caplog):
    assert list(open_database(str(torn)).passed_over) == [3]
    assert "version 3 is damaged and is passed over; version 2 is served" in caplog.text
    caplog.clear()
    open_database(f"{torn}@2")
    assert not caplog.text


def test_nothing_is_written_until_somebody_chooses_a_version(torn):
    for change in (lambda: Database.open(torn).write("delete", "tests").__enter__(), Database.open(torn).undo):
        with pytest.raises(DatabaseError, match=r"E316(.|\n)*version 3(.|\n)*db restore .* 2"):
            change()
    assert versions(torn) == [1, 2, 3]
    chosen = Database.open(torn).restore(2)
    assert (chosen.version, chosen.manifest.parent, list(chosen.passed_over)) == (4, 2, [])
    with chosen.write("delete", "tests") as transaction:
        transaction.delete(labels=["class 1"])
        assert transaction.commit().version == 5
