import pytest
import torch

from retclip.core.vocabulary import Category, Vocabulary, seen_classes
from retclip.segmenters.fcclip.text import encode_names, split_names


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("wall, walls,brick wall", ("wall", "walls", "brick wall")),
        ("sky", ("sky",)),
        ("a,a", ("a", "a")),
    ],
)
def test_names_are_split_at_commas(line, names):
    assert split_names(line) == names


def test_names_must_be_equal_letter_by_letter_to_count_as_seen():
    vocabulary = Vocabulary("v", (Category(0, ("animal", "dog")), Category(1, ("Dog",)), Category(2, ("hot dog",))))
    assert seen_classes(vocabulary, ["dog", "cat"]) == [True, False, False]


def test_every_synonym_has_its_own_row_beside_those_of_its_class():
    table = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))

    def tokenizer(texts):
        return torch.tensor([[sum(map(ord, text)) % 1000] for text in texts])

    def encode(tokens):
        return table[tokens[:, 0]]

    rows = encode_names([["a"], ["b", "c"], ["a"]], encode, tokenizer, torch.device("cpu"))
    assert rows.names_per_class == (1, 2, 1)
    assert torch.equal(rows.rows[0], rows.rows[3])
    assert not torch.equal(rows.rows[1], rows.rows[2])
