"""A model of power loss: what was not flushed may be lost, kept, zeroed or torn, each name and file by itself.

Killing a process cannot see a missing fsync, because the page cache outlives it; this can. The system calls of a
commit are recorded, replayed up to every point on a model disk, and the disk is then cut off by an adversary.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify


class Node:
    """A file (bytes) or a folder (name -> Node), as programs see it and as the disk surely has it."""

    def __init__(self, content):
        self.now, self.safe = content, content.copy()

    @classmethod
    def load(cls, path):
        if path.is_file():
            return cls(bytearray(path.read_bytes()))
        return cls({child.name: cls.load(child) for child in path.iterdir()})


class Disk:
    """Replays recorded calls; paths are tuples of names below the database."""

    def __init__(self, root):
        self.root = root

    def at(self, path):
        node = self.root
        for name in path:
            node = node.now[name]
        return node

    def replay(self, call, path, value=None):
        folder = self.at(path[:-1]).now if path else None
        if call == "create":
            folder[path[-1]] = Node(bytearray())
        elif call == "write":
            self.at(path).now.extend(value)
        elif call == "fsync":
            node = self.at(path)
            node.safe = node.now.copy()
        elif call == "mkdir":
            folder[path[-1]] = Node({})
        elif call == "unlink":
            del folder[path[-1]]
        else:
            self.at(value[:-1]).now[value[-1]] = folder[path[-1]]
            if call == "rename":
                del folder[path[-1]]

    def cut(self, rng, node=None):
        """What is found after the power came back: {path: bytes}, folders as None."""
        node = node or self.root
        if isinstance(node.now, bytearray):
            torn = node.now[: int(rng.integers(0, len(node.now) + 1))]
            choices = [node.now, node.safe, torn, bytearray(len(node.now))]
            return bytes(choices[rng.integers(0, 4)] if node.now != node.safe else node.now)
        found = {}
        for name in sorted({*node.now, *node.safe}):
            child = (node.now if rng.integers(0, 2) else node.safe).get(name)
            if child is not None:
                below = self.cut(rng, child)
                found |= {name: below} if isinstance(below, bytes) else {name: None}
                found |= {f"{name}/{k}": v for k, v in below.items()} if isinstance(below, dict) else {}
        return found


class Recorder:
    """Stands in for the system calls of `os` and writes down those that change the database."""

    NAMES = ("open", "write", "fsync", "rename", "link", "mkdir", "unlink")

    def __init__(self, folder):
        self.folder, self.calls, self.open_files = folder, [], {}
        self.real = {name: getattr(os, name) for name in self.NAMES}

    def names(self, path):
        return Path(path).relative_to(self.folder).parts

    def open(self, path, flags, *args, **kwargs):
        descriptor = self.real["open"](path, flags, *args, **kwargs)
        if isinstance(path, Path) and path.name != "LOCK":
            self.open_files[descriptor] = self.names(path)
            if flags & os.O_CREAT:
                self.calls.append(("create", self.names(path)))
        return descriptor

    def write(self, descriptor, data):
        count = self.real["write"](descriptor, data)
        self.calls.append(("write", self.open_files[descriptor], bytes(data[:count])))
        return count

    def fsync(self, descriptor):
        self.real["fsync"](descriptor)
        self.calls.append(("fsync", self.open_files[descriptor]))

    def rename(self, source, target):
        self.real["rename"](source, target)
        self.calls.append(("rename", self.names(source), self.names(target)))

    def link(self, source, target):
        self.real["link"](source, target)
        self.calls.append(("link", self.names(source), self.names(target)))

    def mkdir(self, path, *args):
        self.real["mkdir"](path, *args)
        self.calls.append(("mkdir", self.names(path)))

    def unlink(self, path):
        self.real["unlink"](path)
        self.calls.append(("unlink", self.names(path)))


@pytest.fixture
def recorded(database, make, monkeypatch):
    """(state before, calls of one commit, content hashes before and after)."""
    root, recorder = Node.load(database.path), Recorder(database.path)
    with monkeypatch.context() as patch:
        for name in recorder.NAMES:
            patch.setattr(os, name, getattr(recorder, name))
        with database.write("change", "tests", shard_rows=4) as transaction:
            transaction.add([make.segment(n, "new") for n in range(300, 307)], np.ones((7, 8), np.float32))
            transaction.delete(source="beta")
            after = transaction.commit()
    return root, recorder.calls, database.content_hash(), after.content_hash()


def copy_of(node, seen):
    """An independent tree with the same links."""
    if id(node) not in seen:
        seen[id(node)] = fresh = Node(node.now.copy())
        if isinstance(node.now, dict):
            fresh.now = {name: copy_of(child, seen) for name, child in node.now.items()}
            fresh.safe = fresh.now.copy()
    return seen[id(node)]


def violations(recorded, folder, keep=lambda call: True, tries=6):
    """How many power losses leave a database that is neither the old nor the new version, whole and acknowledged."""
    root, calls, before, after = recorded
    kept = [call for call in calls if keep(call)]
    known = {}
    count = 0
    for end in range(len(kept) + 1):
        disk = Disk(copy_of(root, {}))
        for call in kept[:end]:
            disk.replay(*call)
        done = end == len(kept)
        for seed in range(tries * 10 if done else tries):
            state = tuple(disk.cut(np.random.default_rng([end, seed])).items())
            if state not in known:
                known[state] = content(state, folder / str(len(known)))
            count += known[state] != after if done else known[state] not in (before, after)
    return count


def content(state, path):
    """Content hash of the database with these files; what is wrong where it has none."""
    path.mkdir(parents=True)
    for name, data in state:
        if data is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(data)
    try:
        Database.open(path)
    except DatabaseError as error:
        return error.code
    report = verify(path, deep=True)
    return report.content_hash if report.ok else str(report.problems)


def test_no_power_loss_breaks_a_commit(recorded, tmp_path):
    assert {call for call, *_ in recorded[1]} == {"create", "write", "fsync", "rename", "link", "mkdir", "unlink"}
    assert violations(recorded, tmp_path / "cut") == 0


FLUSHES = {
    "rows": lambda path: path[0] == "shards" and len(path) == 3,
    "shard folder": lambda path: path[0] == "shards" and len(path) == 2,
    "shards": lambda path: path == ("shards",),
    "bitmap": lambda path: path[0] == "deletes" and len(path) == 2,
    "deletes": lambda path: path == ("deletes",),
    "manifest": lambda path: path[0] == "manifests" and len(path) == 2,
    "manifests": lambda path: path == ("manifests",),
}


@pytest.mark.parametrize("flush", FLUSHES)
def test_every_flush_is_needed(recorded, tmp_path, flush):
    left_out = [call for call in recorded[1] if call[0] == "fsync" and FLUSHES[flush](call[1])]
    assert left_out
    assert violations(recorded, tmp_path / "cut", lambda call: call not in left_out, tries=1) > 0
