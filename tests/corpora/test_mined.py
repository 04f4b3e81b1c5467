from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary
from retclip.corpora import describe
from retclip.corpora.coco_instances import CocoInstances
from retclip.corpora.mined import MinedCorpus
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region
from retclip.vocabularies import load_vocabulary

CAT = ImageLabel("/m/01", "human", 1.0, True)
NO_DOG = ImageLabel("/m/02", "human", 1.0, False)
CAPTIONS = {
    "1": (("A dog and a cat.", "A dog."), (CAT,)),
    "2": (("A dog on grass.",), (NO_DOG,)),
    "3": (("Grass with a kitty", "A cat", "Cats", "No cats"), ()),
    "4": ((), (CAT,)),
}
VOCABULARY = Vocabulary(
    "v", (Category(0, ("kitten", "cat", "kitty")), Category(1, ("dog",)), Category(2, ("grass", "lawn"), False))
)


class CaptionedCorpus:
    name = "captioned"
    classes = (CorpusClass("/m/01", "Cat", (), True), CorpusClass("/m/02", "Dog", (), True))

    def size(self) -> int:
        return len(CAPTIONS)

    def images(self) -> Iterator[CorpusImage]:
        for number, (captions, labels) in CAPTIONS.items():
            yield CorpusImage(self.name, number, Path(f"{number}.jpg"), "train", labels, captions)

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: str) -> list[Region]:
        return []

    def warnings(self) -> list[str]:
        return ["one"]


def labels_of(corpus: MinedCorpus) -> dict[str, list[tuple[str, str, float, bool]]]:
    return {i.image_id: [(x.name, x.source, x.confidence, x.present) for x in i.labels] for i in corpus.images()}


def test_captions_add_to_what_the_corpus_says_and_never_contradict_it() -> None:
    assert labels_of(MinedCorpus(CaptionedCorpus(), VOCABULARY)) == {
        "1": [("/m/01", "human", 1.0, True), ("/m/02", "caption", 1.0, True)],
        "2": [("/m/02", "human", 1.0, False), ("grass", "caption", 1.0, True)],
        "3": [("grass", "caption", 0.25, True), ("/m/01", "caption", 0.75, True)],
        "4": [("/m/01", "human", 1.0, True)],
    }


def test_classes_of_the_vocabulary_join_those_of_the_corpus_by_name() -> None:
    corpus = MinedCorpus(CaptionedCorpus(), VOCABULARY)
    assert corpus.classes == (*CaptionedCorpus.classes, CorpusClass("grass", "grass", ("lawn",), False))
    assert (corpus.name, corpus.size(), corpus.regions(next(corpus.images()), (1, 1), "masks")) == ("captioned", 4, [])


def test_a_description_needs_no_pixels_and_counts_mined_labels() -> None:
    found = describe(MinedCorpus(CaptionedCorpus(), VOCABULARY))
    assert (found.images_by_class, found.unmapped) == ({"Cat": 3, "grass": 2, "Dog": 1}, {})


def test_rare_classes_are_left_out_with_a_warning() -> None:
    corpus = MinedCorpus(CaptionedCorpus(), VOCABULARY, min_count=3)
    assert [label[0] for label in labels_of(corpus)["3"]] == ["/m/01"]
    assert corpus.warnings() == ["one", "1 classes are mentioned too rarely: grass"]


def test_captions_that_match_nothing_are_an_error() -> None:
    strange = Vocabulary("v", (Category(0, ("unicorn",)),))
    with pytest.raises(InputError, match=r"(?s)E108 .*0 of 7.*'unicorn'"):
        list(MinedCorpus(CaptionedCorpus(), strange).images())
    with pytest.raises(InputError, match="E108"):
        MinedCorpus(CaptionedCorpus(), VOCABULARY, min_count=9)


def test_shared_names_are_warned_about() -> None:
    shared = Vocabulary("v", (Category(0, ("dog", "pet")), Category(1, ("cat", "pet"))))
    assert MinedCorpus(CaptionedCorpus(), shared).warnings()[1].startswith("'pet' is a name of dog, cat")


@pytest.mark.photos
def test_real_captions_agree_with_real_annotations(test_data: Path) -> None:
    corpus = CocoInstances(test_data / "tiny_coco" / "tiny_coco", "train")
    names = {known.raw for known in corpus.classes}
    things = Vocabulary("coco80", tuple(c for c in load_vocabulary("@coco133") if c.name in names))
    captions = [replace(image, labels=()) for image in corpus.images()]
    corpus_of_captions = CaptionedCorpus()
    corpus_of_captions.classes = corpus.classes
    corpus_of_captions.images = lambda: iter(captions)  # type: ignore[method-assign]
    truth = {image.image_id: {label.name for label in image.labels} for image in corpus.images()}
    right = mined = sure = surely_right = 0
    for image in MinedCorpus(corpus_of_captions, things).images():
        found = {label.name: label.confidence for label in image.labels}
        right, mined = right + len(found.keys() & truth[image.image_id]), mined + len(found)
        agreed = {name for name, confidence in found.items() if confidence > 0.5}
        sure, surely_right = sure + len(agreed), surely_right + len(agreed & truth[image.image_id])
    annotated = sum(map(len, truth.values()))
    assert right / mined > 0.85
    assert right / annotated > 0.4
    assert surely_right / sure > 0.95
