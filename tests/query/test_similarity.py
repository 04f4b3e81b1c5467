"""Text similarity: a class is as close as its closest name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.vocabulary import Category, Vocabulary
from retclip.query.similarity import TextSimilarity, class_probabilities
from tests.fakes import COLOURS, ColourEncoder, ColourTexts


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 3), st.integers(0, 1000))
def test_probabilities_are_their_definition(counts: list[int], rows: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    keys = torch.nn.functional.normalize(torch.randn(rows, 5, generator=random), dim=1)
    texts = torch.nn.functional.normalize(torch.randn(sum(counts), 5, generator=random), dim=1)
    found = class_probabilities(keys, texts, counts, 13.0)
    assert found.shape == (rows, len(counts))
    for row in range(rows):
        best, start = [], 0
        for count in counts:
            best.append(max(float(keys[row] @ texts[t]) for t in range(start, start + count)))
            start += count
        torch.testing.assert_close(found[row], (13.0 * torch.tensor(best)).softmax(dim=0), atol=1e-5, rtol=0)


def test_a_colour_is_recognised_by_its_word_or_a_synonym() -> None:
    encoder = ColourEncoder()
    texts = ColourTexts(encoder)
    vocabulary = Vocabulary("c", (Category(0, ("chair", "navy")), Category(1, ("scarlet", "door"))))
    keys = texts.encode_names(["blue", "red"])
    scores = TextSimilarity(texts).scores(keys, vocabulary)
    assert scores.argmax(dim=1).tolist() == [0, 1]
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(2))


def test_texts_are_encoded_once_per_vocabulary() -> None:
    texts = ColourTexts(ColourEncoder())
    similarity = TextSimilarity(texts)
    first, second = (Vocabulary.from_names("c", names) for names in (list(COLOURS), ["red", "blue"]))
    keys = torch.eye(2, 6)
    for vocabulary in (first, first, second, Vocabulary.from_names("c", ["red", "blue"])):
        assert similarity.scores(keys, vocabulary).shape == (2, len(vocabulary))
    assert texts.encoded == [tuple(COLOURS), ("red", "blue")]


def test_hundredfold_scale_does_not_overflow() -> None:
    keys = torch.tensor([[1.0, 0.0]])
    scores = class_probabilities(keys, torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), [1, 1], 100.0)
    assert scores.tolist()[0] == pytest.approx([1.0, 0.0])
