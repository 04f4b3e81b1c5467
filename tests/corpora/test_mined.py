from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary
from retclip.corpora import describe
from retclip.corpora.mined import MinedCorpus
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region

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
