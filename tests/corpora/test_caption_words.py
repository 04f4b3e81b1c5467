from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.corpora.caption_words import comparable_word, find_spans, find_words


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"), ("Buses", "bus"), ("glasses", "glass"), ("boxes", "box"), ("benches", "bench"),
        ("dishes", "dish"), ("horses", "horse"), ("vases", "vase"), ("ponies", "pony"), ("cookies", "cookie"),
        ("ties", "tie"), ("knives", "knife"), ("gloves", "glove"), ("shoes", "shoe"), ("potatoes", "potato"),
        ("men", "man"), ("people", "person"), ("skis", "ski"), ("TVs", "tv"), ("mice", "mouse"), ("leaves", "leaf"),
    ],
)  # fmt: skip
def test_plurals_become_singular(plural: str, singular: str) -> None:
    assert comparable_word(plural) == comparable_word(singular) == singular


@pytest.mark.parametrize("word", ["bus", "grass", "tennis", "cactus", "gas", "this", "sheep", "scissor"])
def test_singulars_stay(word: str) -> None:
    assert comparable_word(word) == word


def test_possessives_hyphens_and_sentence_ends() -> None:
    assert find_words("The dog's T-shirt, isn’t it? Yes.") == [
        "the",
        "dog",
        "t",
        "shirt",
        "isn't",
        "it",
        "?",
        "yes",
        ".",
    ]


@given(st.text(max_size=200))
def test_every_word_has_its_span(text: str) -> None:
    words, spans = find_words(text), find_spans(text)
    assert [comparable_word(text[start:end]) for start, end in spans] == words
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
