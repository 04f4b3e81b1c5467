from __future__ import annotations

import json
from pathlib import Path

import pytest

from retclip.core.vocabulary import Category, Vocabulary
from retclip.corpora import describe, open_corpus
from retclip.corpora.coco import CocoCorpus
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel


class ListedCorpus:
    name = "listed"
    classes = (CorpusClass("rug-merged", "rug", ("rug-merged",), False), CorpusClass("cat", "cat", (), True))

    def images(self):
        yield self._image("1", ImageLabel("rug-merged", "human", 1.0, True), ImageLabel("cat", "human", 1.0, False))
        yield self._image("2", ImageLabel("cat", "human", 1.0, True), ImageLabel("unicorn", "machine", 0.5, True))
        yield CorpusImage("listed", "3", Path("3.jpg"), "", (), ("A cat.",))

    def _image(self, number: str, *labels: ImageLabel) -> CorpusImage:
        return CorpusImage("listed", number, Path(f"{number}.jpg"), "train", labels)

    def regions(self, image, size, kind):
        raise AssertionError("a description must not read regions")

    def warnings(self) -> list[str]:
        return ["one warning"]


def test_every_picture_is_counted_once() -> None:
    found = describe(ListedCorpus())
    assert (found.images, found.labelled, found.captioned, found.classes, found.absent) == (3, 2, 1, 2, 1)
    assert found.images_by_class == {"cat": 1, "rug": 1}
    assert found.unmapped == {"unicorn": 1}
    assert found.warnings == ("one warning",)


@pytest.mark.parametrize(
    ("names", "unmapped"),
    [(("Rug_Merged",), {"cat", "rug-merged", "unicorn"}), (("carpet", "RUG"), {"cat", "unicorn"})],
)
def test_labels_outside_a_vocabulary_are_unmapped(names: tuple[str, ...], unmapped: set[str]) -> None:
    assert set(describe(ListedCorpus(), Vocabulary("v", (Category(0, names),))).unmapped) == unmapped


def test_samples_are_the_first_records_and_json() -> None:
    found = describe(ListedCorpus(), limit=2)
    assert [(sample["image_id"], sample["labels"]) for sample in found.samples] == [
        ("1", ["rug-merged"]),
        ("2", ["cat", "unicorn"]),
    ]
    assert json.loads(json.dumps(found.to_json()))["samples"][0]["split"] == "train"


@pytest.mark.photos
def test_real_corpus(photos: Path) -> None:
    found = describe(open_corpus("coco", photos, "train"))
    assert (found.images, found.labelled, found.classes, found.unmapped) == (100, 100, 133, {})
    assert sum(found.images_by_class.values()) == sum(len(i.labels) for i in CocoCorpus(photos).images())
