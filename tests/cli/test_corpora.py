"""`retclip corpora fetch`: the photos that some classes need, from a server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.corpora.openimages_trees import DOG, save_text
from tests.corpora.test_openimages_fetch import IDS, Bucket

Run = Any


@pytest.fixture
def host() -> Iterator[Bucket]:
    host = Bucket()
    thread = Thread(target=host.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    host.server.shutdown()
    thread.join()
    host.server.server_close()


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    header = "ImageID,Source,LabelName,Confidence"
    rows = [f"{image_id},verification,{DOG},1" for image_id in IDS[:4]]
    save_text(tmp_path / "oidv7-train-annotations-human-imagelabels.csv", "\n".join([header, *rows]) + "\n")
    save_text(tmp_path / "class-descriptions-boxable.csv", f"{DOG},Dog\n")
    return tmp_path


def test_photos_of_a_class_are_fetched_and_can_be_read_as_a_corpus(tables: Path, host: Bucket, run: Run) -> None:
    words = ["corpora", "fetch", "openimages", "--root", tables, "--classes", "dog", "--mirror", host.url]
    fetched = run(*words, "--per-class", 3, "--json")
    assert fetched.code == 0, fetched.err
    assert (fetched.json["fetched"], fetched.json["photos_by_class"]) == (3, {"Dog": 3})
    again = run(*words, "--per-class", 4, "--json")
    assert (again.json["fetched"], again.json["present"]) == (1, 3)
    plan = run("index", "build", "--source", "openimages", "--root", tables, "--split", "train", "--dry-run", "--json")
    assert (plan.json["images"], plan.json["images_by_class"]) == (4, {"Dog": 4})


def test_failed_photos_are_named_and_counted(tables: Path, host: Bucket, run: Run) -> None:
    host.answers[IDS[1]] = [404]
    words = ["corpora", "fetch", "openimages", "--root", tables, "--classes", "Dog", "--mirror", host.url]
    outcome = run(*words, "--json")
    assert (outcome.code, outcome.error["code"]) == (6, "E601")
    assert IDS[1] in outcome.error["why"]
    assert outcome.json["fetched"] == 3
    assert run(*words, "--max-failures", "1").code == 0


def test_without_a_network_and_without_tables_the_reason_is_told(tables: Path, tmp_path: Path, run: Run) -> None:
    words = ["corpora", "fetch", "openimages", "--classes", "Dog", "--mirror", "http://127.0.0.1:9"]
    assert run(*words, "--root", tables, "--json").error["code"] == "E126"
    missing = run(*words, "--root", tmp_path / "nowhere", "--json")
    assert (missing.code, missing.error["code"]) == (3, "E103")


def test_splits_are_called_as_elsewhere_and_mistakes_are_told(tables: Path, run: Run) -> None:
    words = ["corpora", "fetch", "openimages", "--root", tables, "--classes", "Dog", "--json"]
    other = run(*words, "--split", "val")
    assert (other.error["code"], "oidv7-val-annotations" in other.error["hint"]) == ("E103", True)
    assert run(*words, "--split", "nowhere").error["code"] == "E103"
    assert run(*words, "--mirror", "ftp://photos").error["code"] == "E120"
