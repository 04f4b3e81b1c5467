"""Databases by name and path, at a version."""

import errno
import os
from pathlib import Path

import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import (
    Database,
    database_path,
    home,
    list_databases,
    locate_database,
    new_database_path,
    open_database,
)
from retclip.shards.catalog import is_engine


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


def forbid(monkeypatch, folder):
    """Nobody may look into a folder; tests may run as root, whom permissions do not stop."""
    real_stat, real_list, real_read = Path.stat, Path.iterdir, Path.read_bytes

    def guarded(real):
        def call(path, *args, **kwargs):
            if folder in path.parents or (path == folder and real is real_list):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return real(path, *args, **kwargs)

        return call

    for name, real in (("stat", real_stat), ("iterdir", real_list), ("read_bytes", real_read)):
        monkeypatch.setattr(Path, name, guarded(real))


def test_a_database_that_may_not_be_read_does_not_hide_the_others(shelf, monkeypatch):
    forbid(monkeypatch, shelf / "kitchen.retdb")
    assert [path.name for path in list_databases()] == ["kitchen.retdb", "street.retdb"]
    with pytest.raises(DatabaseError, match=r"E320(.|\n)*Permission denied"):
        open_database("kitchen")


def test_a_folder_of_databases_that_may_not_be_read_is_explained(shelf, monkeypatch):
    forbid(monkeypatch, shelf)
    for look in (list_databases, lambda: open_database("street")):
        with pytest.raises(DatabaseError, match=r"E320(.|\n)*db(.|\n)*Permission denied"):
            look()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a b", "a@b", "x" * 101, "-x"])
def test_names_are_not_paths(shelf, name):
    with pytest.raises(DatabaseError, match="E306"):
        database_path(name)


def test_a_new_database_is_found_again(shelf, tmp_path):
    assert new_database_path("fresh") == shelf / "fresh.retdb"
    assert new_database_path(str(tmp_path / "fresh.retdb")) == tmp_path / "fresh.retdb"
    for place in ("a/b", "../evil", "a/.retdb", "a/b.retdb/c"):
        with pytest.raises(DatabaseError, match=r"E306(.|\n)*ends with \.retdb"):
            new_database_path(place)


@pytest.mark.parametrize("reference", ["lancedb:folder", "qdrant:http://localhost:6333#pets"])
def test_engines_are_no_databases_of_ours(shelf, reference):
    assert is_engine(reference)
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*a database of retclip's own"):
        open_database(reference)


@pytest.mark.parametrize("name", ["pets@3", "qdrant", "milvus:x"])
def test_other_names_are_no_engines(name):
    assert not is_engine(name)
