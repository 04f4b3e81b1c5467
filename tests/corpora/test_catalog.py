from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.corpora import CorpusOptions, TableColumns, corpus_names, open_corpus


@pytest.fixture
def photos_root(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "folder" / "cat" / "a.jpg")
    return tmp_path


def test_readers_are_listed() -> None:
    assert corpus_names() == ("coco", "ade20k", "folder", "table")


def test_the_default_place_is_below_the_data_folder(photos_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETCLIP_DATA", str(photos_root))
    corpus = open_corpus("folder", None, None)
    assert (corpus.name, [image.image_id for image in corpus.images()]) == ("folder", ["cat/a.jpg"])
    with pytest.raises(InputError, match=r"E118 .*coco does not exist"):
        open_corpus("coco", None, None)


def test_without_a_place_the_variable_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETCLIP_DATA", raising=False)
    with pytest.raises(InputError, match=r"(?s)E118 .*RETCLIP_DATA.*--root"):
        open_corpus("coco", None, None)


def test_a_file_is_no_folder(photos_root: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        open_corpus("folder", photos_root / "folder" / "cat" / "a.jpg", None)


@pytest.mark.parametrize("name", ["openimages", "webdataset", "hf", "cityscapes", "voc", "pcontext", "ade20k-full"])
def test_sources_without_reader_say_what_works_today(name: str) -> None:
    with pytest.raises(InputError, match=rf"E115 This version cannot read '{name}'") as caught:
        open_corpus(name, None, None)
    assert any(f"--source {reader}" in caught.value.fix for reader in corpus_names())


@pytest.mark.parametrize(("name", "near"), [("coc", "coco"), ("ADE20K", "ade20k"), ("openimage", "openimages")])
def test_unknown_names_get_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(InputError, match=rf"E115 .*did you mean '{near}'"):
        open_corpus(name, None, None)
    with pytest.raises(InputError, match=r"E115 Unknown source 'zzz'\.\n"):
        open_corpus("zzz", None, None)


@pytest.mark.parametrize("name", ["coco", "folder"])
def test_a_folder_of_another_corpus_is_recognised(photos_root: Path, name: str) -> None:
    root = photos_root / "folder"
    (root / "objectInfo150.txt").touch()
    with pytest.raises(InputError, match=rf"(?s)E102 .*looks like ADEChallengeData2016, not {name}.*--source ade20k"):
        open_corpus(name, root, None)


def test_coco_is_recognised_and_wins_where_both_marks_are(photos_root: Path) -> None:
    (photos_root / "annotations").mkdir()
    (photos_root / "annotations" / "panoptic_val2017.json").touch()
    with pytest.raises(InputError, match=r"E102 .*looks like COCO panoptic, not ade20k"):
        open_corpus("ade20k", photos_root, None)
    (photos_root / "objectInfo150.txt").touch()
    with pytest.raises(InputError, match="E103"):
        open_corpus("coco", photos_root, None)


def test_options_reach_the_table_reader(photos_root: Path) -> None:
    root = photos_root / "folder"
    (root / "objectInfo150.txt").touch()
    (root / "one.csv").write_text("#\nf,l\ncat/a.jpg,dog\n")
    (root / "two.csv").touch()
    options = CorpusOptions(Path("one.csv"), TableColumns(path="f", labels="l"), comments=True)
    (image,) = open_corpus("table", root, None, options).images()
    assert image.labels[0].name == "dog"
