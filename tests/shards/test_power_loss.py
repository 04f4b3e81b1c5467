"""A model of power loss: what was not flushed may be lost, kept, zeroed or torn, each name and file by itself.

Killing a process cannot see a missing fsync, because the page cache outlives it; this can. The system calls of a
commit are recorded, replayed up to every point on a model disk, and the disk is then cut off by an adversary.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.erasure import Selection, erase
from retclip.shards.manifest import versions
from retclip.shards.retention import collect


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
        elif call in ("unlink", "rmdir"):
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
        self.real_rmtree = shutil.rmtree

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

    def rmtree(self, path):
        """Files first, then the folder, as every removal of a tree does; folders here hold files only."""
        for child in sorted(path.iterdir()):
            self.calls.append(("unlink", self.names(child)))
        self.calls.append(("rmdir", self.names(path)))
        with pytest.MonkeyPatch.context() as patch:
            for name in self.NAMES:
                patch.setattr(os, name, self.real[name])
            self.real_rmtree(path)


def change(path, make):
    with Database.open(path).write("change", "tests", shard_rows=4) as transaction:
        transaction.add([make.segment(n, "new") for n in range(300, 307)], np.ones((7, 8), np.float32))
        transaction.delete(source="beta")
        transaction.commit()


def compact(path, make):
    with Database.open(path).write("compact", "tests", shard_rows=40) as transaction:
        transaction.compact([entry.id for entry in Database.open(path).manifest.shards[:2]])
        transaction.commit()


def gc(path, make):
    assert collect(path, 1).versions == (1, 2, 3)


def erase_image(path, make):
    assert erase(path, Selection("image_sha256", make.segment(5, "x").image_sha256), "tests").segments == 3


OPERATIONS = {"change": change, "compact": compact, "gc": gc, "erase": erase_image}


class Recording:
    """State before, calls of an operation, and what may be found after a power loss: during it, and when it is done."""

    def __init__(self, operation, path, make, monkeypatch):
        self.root, recorder = Node.load(path), Recorder(path)
        # What an erasure removes; no other operation may be asked about it.
        self.trace = make.segment(5, "x").segment_id.to_bytes(8, "little") if operation == "erase" else None
        before = self.content(path)
        with monkeypatch.context() as patch:
            for name in recorder.NAMES:
                patch.setattr(os, name, getattr(recorder, name))
            patch.setattr(shutil, "rmtree", recorder.rmtree)
            OPERATIONS[operation](path, make)
        self.calls = recorder.calls
        self.done = self.content(path)
        self.during = {before, self.done, (self.done[0], before[1])}

    def content(self, path):
        """(content hash, whether the trace is there) when all versions are whole, else what is wrong."""
        try:
            Database.open(path)
        except DatabaseError as error:
            return error.code, False
        for version in versions(path):
            report = verify(path, version, deep=True)
            if not report.ok:
                return str(report.problems), False
        found = self.trace and any(self.trace in file.read_bytes() for file in path.rglob("*") if file.is_file())
        return report.content_hash, bool(found)


@pytest.fixture
def record(make, tmp_path, monkeypatch):
    """Records an operation on a database of four versions: two shards, bitmaps, and shards that only old ones name."""

    def record(operation):
        segments, vectors = make.rows(16)
        path = make.build(tmp_path / "d.retdb", segments, vectors, shard_rows=8).path
        for labels in (["class 1"], ["class 2"]):
            with Database.open(path).write("delete", "tests") as transaction:
                transaction.delete(labels=labels, segment_ids=[segments[3].segment_id])
                transaction.compact([Database.open(path).manifest.shards[0].id])
                transaction.commit()
        return Recording(operation, path, make, monkeypatch)

    return record


def copy_of(node, seen):
    """An independent tree with the same links."""
    if id(node) not in seen:
        seen[id(node)] = fresh = Node(node.now.copy())
        if isinstance(node.now, dict):
            fresh.now = {name: copy_of(child, seen) for name, child in node.now.items()}
            fresh.safe = fresh.now.copy()
    return seen[id(node)]


def violations(recording, folder, tries):
    """How many power losses leave something that may not be found at that moment."""
    kept = recording.calls
    known = {}
    count = 0
    for end in range(len(kept) + 1):
        disk = Disk(copy_of(recording.root, {}))
        for call in kept[:end]:
            disk.replay(*call)
        done = end == len(kept)
        for seed in range(tries * 10 if done else tries):
            state = tuple(disk.cut(np.random.default_rng([end, seed])).items())
            if state not in known:
                known[state] = found_in(state, folder / str(len(known)), recording)
            count += known[state] != recording.done if done else known[state] not in recording.during
    return count


def found_in(state, path, recording):
    """What the recording finds in a database with these files."""
    path.mkdir(parents=True)
    for name, data in state:
        if data is None:
            (path / name).mkdir()
        else:
            (path / name).write_bytes(data)
    found = recording.content(path)
    shutil.rmtree(path)
    return found


CALLS = {
    "change": {"create", "write", "fsync", "rename", "link", "mkdir", "unlink"},
    "compact": {"create", "write", "fsync", "rename", "link", "mkdir", "unlink"},
    "gc": {"fsync", "unlink", "rmdir"},
    "erase": {"create", "write", "fsync", "rename", "link", "mkdir", "unlink", "rmdir"},
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_power_loss_breaks_an_operation(record, tmp_path, operation):
    recording = record(operation)
    assert {call for call, *_ in recording.calls} == CALLS[operation]
    assert violations(recording, tmp_path / "cut", tries=4) == 0


def test_no_power_loss_breaks_a_write_that_makes_a_dropped_folder_again(make, tmp_path, monkeypatch):
    """Git and archives keep no empty folders."""

    def delete(path, make):
        with Database.open(path).write("delete", "tests") as transaction:
            transaction.delete(source="beta")
            transaction.commit()

    monkeypatch.setitem(OPERATIONS, "delete", delete)
    path = make.build(tmp_path / "d.retdb", *make.rows(16), shard_rows=8).path
    (path / "deletes").rmdir()
    recording = Recording("delete", path, make, monkeypatch)
    assert ("mkdir", ("deletes",)) in recording.calls
    assert violations(recording, tmp_path / "cut", tries=2) == 0


FLUSHES = {
    "rows": lambda path: path[0] == "shards" and len(path) == 3,
    "shard folder": lambda path: path[0] == "shards" and len(path) == 2,
    "shards": lambda path: path == ("shards",),
    "bitmap": lambda path: path[0] == "deletes" and len(path) == 2,
    "deletes": lambda path: path == ("deletes",),
    "manifest": lambda path: path[0] == "manifests" and len(path) == 2,
    "manifests": lambda path: path == ("manifests",),
}
NEEDED = [("change", flush) for flush in FLUSHES]
# A compaction that is lost altogether loses nothing, so its last flush guards no content.
NEEDED += [("compact", flush) for flush in ("rows", "shard folder", "shards", "manifest")]
NEEDED += [("gc", "manifests"), ("erase", "manifests"), ("erase", "last shards")]


@pytest.mark.parametrize(("operation", "flush"), NEEDED)
def test_every_flush_is_needed(record, tmp_path, operation, flush):
    recording = record(operation)
    calls = recording.calls
    if flush == "last shards":  # of an erasure, whose removals must not come back
        left_out = [max(n for n, call in enumerate(calls) if call == ("fsync", ("shards",)))]
    else:
        left_out = [n for n, call in enumerate(calls) if call[0] == "fsync" and FLUSHES[flush](call[1])]
    assert left_out
    recording.calls = [call for n, call in enumerate(calls) if n not in left_out]
    assert violations(recording, tmp_path / "cut", tries=1) > 0
