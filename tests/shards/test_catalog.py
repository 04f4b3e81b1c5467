"""Databases by name and path, at a version."""

from pathlib import Path

import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, database_path, home, list_databases, locate_database, open_database


@pytest.fixture
def shelf(tmp_path, monkeypatch, make):
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path / "home"))
    for name in ("kitchen", "street"):
        database = Database.create(database_path(name), make.space(), {})
        with database.write("build", "tests") as transaction:
            transaction.add(*make.rows(4))
            transaction.commit()
    return tmp_path / "home" / "db"


def test_home(monkeypatch, tmp_path):
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path))
    assert home() == tmp_path
    assert list_databases() == []
    monkeypatch.delenv("RETCLIP_HOME")
    assert home() == Path.home() / ".retclip"


def test_names_paths_and_versions(shelf, monkeypatch):
    path = str(shelf / "street.retdb")
    for reference, version in (("street", 2), ("street@1", 1), (path, 2), (path + "@1", 1)):
        found = open_database(reference)
        assert (found.name, found.version, found.path) == ("street", version, Path(path))
    monkeypatch.chdir(shelf)
    assert open_database("street.retdb@2").version == 2
    assert [p.name for p in list_databases()] == ["kitchen.retdb", "street.retdb"]


def test_locating_reads_nothing(shelf):
    (shelf / "street.retdb" / "FORMAT").write_bytes(b"damaged")
    assert locate_database("street@1") == (shelf / "street.retdb", 1)
    assert locate_database(str(shelf / "street.retdb")) == (shelf / "street.retdb", None)


def test_unknown_names_get_a_suggestion(shelf):
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*Did you mean: street\?"):
        open_database("stret")
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*no version 9"):
        open_database("street@9")
    with pytest.raises(DatabaseError, match="E306"):
        open_database(str(shelf / "garden.retdb"))


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a b", "a@b", "x" * 101, "-x"])
def test_names_are_not_paths(shelf, name):
    with pytest.raises(DatabaseError, match="E306"):
        database_path(name)
