"""Corpora travel to workers as they are: opened once, the same there."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retclip.core.vocabulary import Vocabulary
from retclip.corpora import open_corpus
from retclip.corpora.mined import MinedCorpus
from retclip.ports.corpora import Corpus
from tests.absence import require_library
from tests.corpora import openimages_trees
from tests.corpora.test_ade20k import write_corpus


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), "red").save(path)
    return path


def folder(root: Path) -> Corpus:
    picture(root / "red" / "a.png")
    return open_corpus("folder", root, None)


def table(root: Path) -> Corpus:
    picture(root / "a.png")
    (root / "t.jsonl").write_text(json.dumps({"path": "a.png", "boxes": [[1, 1, 9, 9, "car"]]}) + "\n")
    return open_corpus("table", root, None)


def webdataset(root: Path) -> Corpus:
    members = {"a.png": picture(root / "a.png").read_bytes(), "a.cls": b"car", "a.txt": b"a red car"}
    with tarfile.open(root / "w.tar", "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return open_corpus("webdataset", root / "w.tar", None)


def mined(root: Path) -> Corpus:
    return MinedCorpus(webdataset(root), Vocabulary.from_names("words", ["car", "boat"]))


def openimages(root: Path) -> Corpus:
    return open_corpus("openimages", openimages_trees.published(root), None)


def ade20k(root: Path) -> Corpus:
    return open_corpus("ade20k", write_corpus(root), None)


def hf(root: Path) -> Corpus:
    require_library("datasets", "hf")
    picture(root / "d" / "train" / "car" / "a.png")
    return open_corpus("hf", root / "d", None)


@pytest.mark.parametrize("opened", [folder, table, webdataset, mined, openimages, ade20k, hf])
def test_a_corpus_is_the_same_after_its_journey(tmp_path: Path, opened: Callable[[Path], Corpus]) -> None:
    compare(opened(tmp_path), "boxes" if opened in (folder, table, openimages, ade20k) else None)


def test_coco_too(photos: Path) -> None:
    compare(open_corpus("coco", photos, "train"), "masks")


def compare(corpus: Corpus, kind: str | None) -> None:
    copy: Corpus = pickle.loads(pickle.dumps(corpus))
    assert (copy.name, copy.classes, copy.size()) == (corpus.name, corpus.classes, corpus.size())
    images = list(corpus.images())
    assert images
    assert list(copy.images()) == images
    for image in pickle.loads(pickle.dumps(images))[:3]:
        size = image.read().size
        if kind is not None:
            there, here = copy.regions(image, size, kind), corpus.regions(image, size, kind)  # type: ignore[arg-type]
            assert [(r.label, r.box, r.mask.tobytes()) for r in there] == [
                (r.label, r.box, r.mask.tobytes()) for r in here
            ]
