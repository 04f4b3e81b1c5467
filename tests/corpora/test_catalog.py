from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.corpora import CorpusOptions, TableColumns, corpus_names, open_corpus
from retclip.corpora.coco_instances import CocoInstances
from tests.corpora.openimages_trees import FIRST, datumaro, fiftyone, flat, published
from tests.corpora.test_coco_instances import write_corpus as write_instances
from tests.corpora.test_webdataset import write_tar


@pytest.fixture
def photos_root(tmp_path: Path) -> Path:
    (tmp_path / "folder" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 2)).save(tmp_path / "folder" / "cat" / "a.jpg")
    return tmp_path


def test_readers_are_listed() -> None:
    assert corpus_names() == ("coco", "ade20k", "folder", "table", "openimages", "webdataset", "hf")


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


@pytest.mark.parametrize("name", ["cityscapes", "voc", "pcontext", "ade20k-full"])
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
    with pytest.raises(InputError, match=r"E102 .*looks like COCO, not ade20k"):
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


def test_coco_is_read_from_its_panoptic_annotations_or_else_the_others(tmp_path: Path) -> None:
    assert isinstance(open_corpus("coco", write_instances(tmp_path / "a"), None), CocoInstances)
    both = write_instances(tmp_path / "b")
    (both / "annotations" / "panoptic_val2017.json").touch()
    assert isinstance(open_corpus("coco", both, "train"), CocoInstances)
    with pytest.raises(InputError, match=r"E103 .*val2017"):
        open_corpus("coco", both, "val")


def test_open_images_are_recognised_and_take_their_options(tmp_path: Path) -> None:
    published(tmp_path)
    (tmp_path / "ids.txt").write_text(f"{FIRST}\n")
    options = CorpusOptions(machine_labels=0.5, image_ids=tmp_path / "ids.txt")
    (image,) = open_corpus("openimages", tmp_path, None, options).images()
    assert [label.source for label in image.labels] == ["human", "human", "machine"]
    for layout in (flat, datumaro, fiftyone):
        with pytest.raises(InputError, match=r"(?s)E102 .*looks like Open Images.*--source openimages"):
            open_corpus("folder", layout(tmp_path / layout.__name__), None)


def test_archives_may_be_named_by_a_pattern_and_classes_by_number(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": b"x", "a.cls": b"0"})
    for place in (tmp_path, tmp_path / "0.tar", tmp_path / "{0..0}.tar", tmp_path / "*.tar"):
        (image,) = open_corpus("webdataset", place, None, CorpusOptions(class_names=("cat",))).images()
        assert image.labels[0].name == "cat"
    with pytest.raises(InputError, match="E118"):
        open_corpus("webdataset", tmp_path / "none", None)


def test_a_name_of_the_hub_reaches_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"E12[78]"):
        open_corpus("hf", Path("owner/pets"), None)
