from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.vocabulary import Category, Vocabulary
from retclip.corpora.caption_miner import CaptionMiner, MinedLabel
from retclip.vocabularies import load_vocabulary

CLASSES = (
    ("dog", "puppy"), ("hot dog",), ("car", "motor car"), ("horse",), ("mountain", "mount"), ("bicycle", "bike"),
    ("mouse", "computer mouse"), ("person", "man", "woman"), ("wine glass",), ("chair", "seat"), ("painting",),
    ("St. Bernard",), ("tv", "screen"), ("door", "screen"), ("cat",), ("teddy bear",), ("bear",),
)  # fmt: skip
VOCABULARY = Vocabulary("test", tuple(Category(number, names) for number, names in enumerate(CLASSES)))
MINER = CaptionMiner(VOCABULARY)


def names(caption: str) -> list[str]:
    return [mention.name for mention in MINER.mine(caption)]


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog and a puppy.", ["dog", "dog"]),
        ("Two DOGS chase motor cars", ["dog", "car"]),
        ("Hot dogs on a plate", ["hot dog"]),
        ("A hot dog stand", []),
        ("People ride mountain bikes up the mountain", ["person", "bicycle", "mountain"]),
        ("A mouse pad beside the computer mouse", ["mouse"]),
        ("three wine-glasses", ["wine glass"]),
        ("a teddy bear and a bear", ["teddy bear", "bear"]),
        ("A St. Bernard and a st bernard", ["St. Bernard"] * 2),
        ("scarred hotdoggery", []),
        ("", []),
    ],
)
def test_the_longest_name_counts_once(caption: str, found: list[str]) -> None:
    assert names(caption) == found


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("no cars allowed", []),
        ("no cars or bikes", []),
        ("a man without a dog", ["person"]),
        ("There isn't a horse here", []),
        ("not a dog but a cat", ["cat"]),
        ("no hat on the dog", ["dog"]),
        ("There is no fence. A dog runs.", ["dog"]),
        ("a sign saying no parking in front of a car", ["car"]),
    ],
)
def test_what_is_denied_is_not_there(caption: str, found: list[str]) -> None:
    assert names(caption) == found


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a painting of a horse", ["painting"]),
        ("a statue of a horse and a dog", []),
        ("a painting of a group of horses on a chair", ["painting", "chair"]),
        ("a photo of a horse", ["horse"]),
        ("a painting of hills. A dog", ["painting", "dog"]),
        ("a horse beside a painting", ["horse", "painting"]),
    ],
)
def test_what_is_only_depicted_is_not_there(caption: str, found: list[str]) -> None:
    assert names(caption) == found


def test_every_mention_says_how_it_was_found() -> None:
    assert MINER.mine("Puppies, a bike, a mountain bike!") == [
        MinedLabel("dog", "puppy", "Puppies", (0, 7), "singular"),
        MinedLabel("bicycle", "bike", "bike", (11, 15), "name"),
        MinedLabel("bicycle", "bike", "mountain bike", (19, 32), "phrase"),
    ]


def test_a_name_of_several_classes_belongs_to_none_unless_it_is_a_first_name() -> None:
    assert names("a screen") == []
    assert MINER.ambiguous == {"screen": ("tv", "door")}
    first = CaptionMiner(Vocabulary("v", (Category(0, ("screen",)), Category(1, ("tv", "screens")))))
    assert [mention.name for mention in first.mine("two screens")] == ["screen"]
    assert first.ambiguous == {}


@pytest.mark.parametrize("name", ["@ade150", "@coco133", "@lvis1203", "@voc20", "@cityscapes19"])
def test_every_unambiguous_name_of_the_lists_is_found(name: str) -> None:
    vocabulary = load_vocabulary(name)
    miner = CaptionMiner(vocabulary)
    for category in vocabulary:
        mentions = miner.mine(f"this shows {category.name.replace('_', ' ').replace('.', '')}")
        comparable = " ".join(re.findall(r"[^\W_]+", category.name.lower()))
        assert [mention.name for mention in mentions] == [category.name] or any(
            set(comparable.split()) & set(shared.split()) for shared in miner.ambiguous
        )


@given(st.text(max_size=300))
def test_any_text_is_read_and_spans_are_its_parts(text: str) -> None:
    for mention in MINER.mine(f"dog {text} horses"):
        start, end = mention.span
        assert f"dog {text} horses"[start:end] == mention.surface
        assert mention.name in VOCABULARY.names
