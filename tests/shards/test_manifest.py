"""Manifests: every byte counts, and the highest valid one is current."""

import hashlib
import json

import numpy as np
import pytest

from retclip.core.errors import DatabaseError
from retclip.shards import Database, verify
from retclip.shards.manifest import Manifest, ShardEntry, canonical_json, manifest_path, read_manifest


def test_a_manifest_reads_back_and_is_plain_json(database):
    data = manifest_path(database.path, 2).read_bytes()
    assert Manifest.from_bytes(data).to_bytes() == data
    body = json.loads(data)["body"]
    assert body["version"] == 2
    assert body["preset"] == {"name": "tiny"}
    assert sum(c["count"] for c in body["classes"]) == 60


def test_truncation_at_any_byte_is_detected(database):
    data = manifest_path(database.path, 2).read_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError, match="manifest"):
            Manifest.from_bytes(data[:length])
    for extra in (b"\n", b"\0", data):
        with pytest.raises(ValueError, match="manifest"):
            Manifest.from_bytes(data + extra)


def test_any_changed_byte_is_detected(database):
    data = manifest_path(database.path, 1).read_bytes()
    for place in range(len(data)):
        for bit in (1, 32, 128):
            changed = bytearray(data)
            changed[place] ^= bit
            with pytest.raises(ValueError, match="manifest"):
                Manifest.from_bytes(bytes(changed))


def test_the_highest_valid_version_is_current(database):
    manifest_path(database.path, 2).write_bytes(manifest_path(database.path, 2).read_bytes()[:-1])
    assert Database.open(database.path).version == 1
    assert [v.version for v in database.history()] == [1]
    with pytest.raises(DatabaseError, match=r"E303(.|\n)*000000000002.json"):
        Database.open(database.path, 2)
    manifest_path(database.path, 1).write_bytes(b"")
    with pytest.raises(DatabaseError, match="E303"):
        Database.open(database.path)


def test_a_manifest_under_a_wrong_number_is_refused(database):
    manifest_path(database.path, 3).write_bytes(manifest_path(database.path, 2).read_bytes())
    with pytest.raises(DatabaseError, match="E303"):
        read_manifest(database.path, 3)
    assert Database.open(database.path).version == 2


def test_versions_that_do_not_exist(database):
    with pytest.raises(DatabaseError, match=r"E306(.|\n)*versions 1 to 2"):
        Database.open(database.path, 7)
    for version in (1, 2):
        manifest_path(database.path, version).unlink()
    with pytest.raises(DatabaseError, match="E302"):
        Database.open(database.path)


@pytest.mark.parametrize("bad", ["../../etc", "A" * 32, "0" * 31, "0" * 33])
def test_names_that_could_leave_the_folder_are_refused(database, bad):
    entry = database.manifest.shards[0].to_json()
    with pytest.raises(ValueError, match="shard id"):
        ShardEntry.from_json({**entry, "id": bad})
    with pytest.raises(ValueError, match="shard files"):
        ShardEntry.from_json({**entry, "files": {**entry["files"], "../x": entry["files"]["ids.u64"]}})
    with pytest.raises(ValueError, match="deletes id"):
        ShardEntry.from_json({**entry, "deletes": {"id": bad, "rows": 1, "bytes": 1, "sha256": ""}})


NONSENSE = {
    "an infinite number of rows": lambda body: body["shards"][0].update(rows=float("inf")),
    "too deep": lambda body: body["preset"].update(deep="DEEP"),
    "a circle": lambda body: [
        item.update(state="merged", into=1 - item["id"], count=0) for item in body["classes"][:2]
    ],
    "a class id of 41 bits": lambda body: (body["classes"][0].update(id=1 << 40), body.update(next_class_id=1 << 41)),
    "a class id below 0": lambda body: body["classes"][0].update(id=-5),
    "an unknown transform": lambda body: body.update(transform="../x"),
    "a dimension that is no whole number": lambda body: body["space"].update(dim=8.0),
    "a shard twice": lambda body: body["shards"].append(body["shards"][0]),
}


def forge(database, change):
    """Write version 3, the content of version 2 after `change` of its body, with the digest that belongs to it."""
    body = {**json.loads(manifest_path(database.path, 2).read_bytes())["body"], "version": 3}
    change(body)
    data = json.dumps(body).replace('"DEEP"', "[" * 100_000 + "]" * 100_000).encode()
    digest = hashlib.sha256(data).hexdigest().encode()
    manifest_path(database.path, 3).write_bytes(b'{"body":' + data + b',"sha256":"' + digest + b'"}\n')


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_behind_a_right_digest_is_damage(database, kind):
    forge(database, NONSENSE[kind])
    with pytest.raises(DatabaseError, match=r"E303(.|\n)*000000000003.json"):
        Database.open(database.path, 3)
    assert Database.open(database.path).version == 2
    assert [p.file for p in verify(database.path, deep=True).problems] == ["manifests/000000000003.json"]


def test_rows_of_a_class_that_no_manifest_names_are_damage(database):
    forge(database, lambda body: body["classes"].pop(0))
    with pytest.raises(DatabaseError, match=r"E303(.|\n)*class 0"):
        Database.open(database.path).search(np.ones((1, 8), np.float32), 3)
    assert not verify(database.path, deep=True).ok


def test_a_version_that_nobody_could_open_is_not_published(database, make, monkeypatch, tmp_path):
    """Readers refuse a longer manifest, so a writer must, before it is there."""
    before = {path: path.stat().st_size for path in database.path.rglob("*") if path.name != "LOCK"}
    longest = max(len(manifest_path(database.path, version).read_bytes()) for version in (1, 2))
    monkeypatch.setattr("retclip.shards.manifest.MAX_MANIFEST_BYTES", longest + 100)
    transaction = database.write("change", "tests")
    with pytest.raises(DatabaseError, match=r"E322(.|\n)*5 classes in 4 shards") as caught, transaction:  # noqa: PT012
        transaction.add([make.segment(900, "class 1")], np.ones((1, 8), np.float32))
        transaction.delete(source="beta")
        transaction.commit("a note " * 50)
    assert caught.value.fix
    assert {path: path.stat().st_size for path in database.path.rglob("*") if path.name != "LOCK"} == before
    assert Database.open(database.path).content_hash() == database.content_hash()
    with pytest.raises(DatabaseError, match="E322"):
        Database.create(tmp_path / "new.retdb", make.space(), {"long": "x" * (longest + 100)})
    assert [path.name for path in tmp_path.iterdir()] == [database.path.name]
    with database.write("change", "tests") as transaction:
        transaction.set_transform("centre")
        assert transaction.commit().version == 3


def test_json_has_one_spelling():
    assert canonical_json({"b": [1, "é"], "a": None}) == b'{"a":null,"b":[1,"\\u00e9"]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))
