"""The writer's lock: it goes with its holder, and holds for the folder that it was taken in."""

import os
import signal
import time
from contextlib import ExitStack

import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.lock import writer_lock


@pytest.fixture
def two(database, make, tmp_path):
    """Paths of two databases, and of a link to the first."""
    make.build(tmp_path / "other.retdb", *make.rows(20))
    (tmp_path / "link.retdb").symlink_to(database.path)
    return database.path, tmp_path / "other.retdb", tmp_path / "link.retdb"


def replace_folder(first, other, link):
    """The first is what was written to, the second what took its place."""
    moved = first.with_name("moved.retdb")
    first.rename(moved)
    other.rename(first)
    return moved, first


def switch_link(first, other, link):
    link.unlink()
    link.symlink_to(other)
    return first, other


@pytest.mark.parametrize(("place", "change"), [(0, replace_folder), (2, switch_link)])
@pytest.mark.parametrize("write", ["transaction", "restore"])
def test_a_database_that_took_the_place_of_another_gets_nothing_of_it(two, monkeypatch, place, change, write):
    path, after = two[place], []
    before = [Database.open(each).content_hash() for each in two[:2]]
    with pytest.raises(DatabaseError, match=r"E310 Another folder(.|\n)*Run the command again"):  # noqa: PT012
        if write == "restore":
            monkeypatch.setattr("retclip.shards.publication.timestamp", lambda: after.extend(change(*two)) or "now")
            Database.open(path).restore(1)
        with Database.open(path).write("change", "tests", shard_rows=4) as transaction:
            transaction.delete(source="beta")
            transaction.compact([entry.id for entry in Database.open(path).manifest.shards])
            after.extend(change(*two))
            transaction.commit()
    for each, content in zip(after, before, strict=True):
        assert Database.open(each).content_hash() == content
        assert verify(each, deep=True).ok
        with Database.open(each).write("change", "tests") as transaction:
            transaction.set_transform("centre")
            assert transaction.commit().version == 3


def test_a_lock_file_that_is_removed_keeps_nobody_from_committing(database):
    """A copy may lack it, and link() decides whose version it is."""
    with database.write("change", "tests") as transaction:
        (database.path / "LOCK").unlink()
        transaction.set_transform("centre")
        assert transaction.commit().version == 3


def forked(work):
    """Process id of a child that does `work` and ends."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_a_child_that_was_forked_while_writing_does_not_keep_the_lock(database):
    with database.write("change", "tests") as transaction:
        child = forked(lambda: time.sleep(60))
        transaction.set_transform("centre")
        transaction.commit()
    try:
        with database.write("next", "tests") as transaction:
            transaction.set_transform("none")
            assert transaction.commit().version == 4
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_that_leaves_the_block_does_not_free_the_lock_of_its_parent(database):
    with ExitStack() as stack:
        stack.enter_context(writer_lock(database.path, "change"))
        os.waitpid(forked(stack.close), 0)
        with pytest.raises(DatabaseError, match="E304"):
            database.write("next", "tests").__enter__()
