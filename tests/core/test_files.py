"""Atomic files."""

import errno
import json
import os
from pathlib import Path

import pytest

from retclip.core.errors import InputError, ResourceError
from retclip.core.files import atomic_file, prepare_folder, write_bytes, write_json


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path):
    path = write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(RuntimeError, match="midway"), atomic_file(path) as file:  # noqa: PT012
        file.write(b"new")
        raise RuntimeError("midway")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path, number):
    with pytest.raises(ResourceError) as caught, atomic_file(tmp_path / "a.bin"):
        raise OSError(number, os.strerror(number))
    assert caught.value.code == "E401"
    assert caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_failing_rename_is_reported(tmp_path, monkeypatch):
    def refuse(self, target):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError) as caught:
        write_bytes(tmp_path / "a.bin", b"x")
    assert caught.value.code == "E131"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="E131 Cannot write to"):
        prepare_folder(tmp_path / "taken")
    with pytest.raises(InputError, match="E131"):
        write_bytes(tmp_path / "missing" / "a.bin", b"")


def test_json_is_strict_utf8(tmp_path):
    path = write_json(tmp_path / "a.json", {"name": "Köttbullar 東京"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Köttbullar 東京"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()
