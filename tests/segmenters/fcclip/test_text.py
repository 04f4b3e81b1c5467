import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from retclip.core.vocabulary import Category, Vocabulary, seen_classes
from retclip.segmenters.fcclip.text import CHUNK, PROMPTS, encode_names, prompts, split_names


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


def test_fourteen_prompts_and_only_the_first_plain_one_ends_in_a_period():
    assert len(PROMPTS) == len(set(PROMPTS)) == 14
    assert [prompt.endswith(".") for prompt in PROMPTS[:5]] == [True, False, False, False, False]
    assert all(prompt.endswith(".") for prompt in PROMPTS[5:])
    assert prompts(["cat", "dog"])[14] == "a photo of a dog."


def test_names_must_be_equal_letter_by_letter_to_count_as_seen():
    vocabulary = Vocabulary("v", (Category(0, ("animal", "dog")), Category(1, ("Dog",)), Category(2, ("hot dog",))))
    assert seen_classes(vocabulary, ["dog", "cat"]) == [True, False, False]


def test_chunks_change_nothing_and_rows_are_means_of_unit_vectors():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(1000, 6, generator=generator)
    sizes = []

    def tokenizer(texts):
        sizes.append(len(texts))
        return torch.tensor([[sum(map(ord, text)) % 1000] for text in texts])

    names = [[f"name {i}"] for i in range(9)] + [["a", "b"]]
    rows = encode_names(names, lambda tokens: table[tokens[:, 0]], tokenizer, torch.device("cpu"))
    assert max(sizes) == CHUNK < sum(sizes) == 11 * 14
    assert rows.names_per_class == (1,) * 9 + (2,)
    first = F.normalize(table[tokenizer(prompts(["name 0"]))[:, 0]], dim=-1).mean(0)
    assert_close(rows.rows[0], F.normalize(first, dim=0))
    assert_close(rows.rows.norm(dim=1), torch.ones(11))
