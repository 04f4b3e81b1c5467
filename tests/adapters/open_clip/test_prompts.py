"""Class names to text rows: prompts, averaging, and rows that are kept."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from retclip.adapters.open_clip import prompts as module
from retclip.adapters.open_clip.prompts import CHUNK, PROMPTS, NameRows, encode_names, prompts
from retclip.adapters.open_clip.text_store import TextStore

CPU = torch.device("cpu")


class Tower:
    """A tokenizer and a text tower that count the texts they saw."""

    def __init__(self):
        self.table = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
        self.batches = []

    def tokenizer(self, texts):
        self.batches.append(texts)
        return torch.tensor([[sum(map(ord, text)) % 1000] for text in texts])

    def encode(self, tokens):
        return self.table[tokens[:, 0]]

    def rows(self, store=None):
        return NameRows(self.encode, self.tokenizer, CPU, store)

    @property
    def seen(self):
        return {name for texts in self.batches for name in (text.removeprefix("a photo of a ") for text in texts[::14])}


@pytest.fixture
def tower():
    return Tower()


def test_fourteen_prompts_and_only_the_first_plain_one_ends_in_a_period():
    assert len(PROMPTS) == len(set(PROMPTS)) == 14
    assert [prompt.endswith(".") for prompt in PROMPTS[:5]] == [True, False, False, False, False]
    assert all(prompt.endswith(".") for prompt in PROMPTS[5:])
    assert prompts(["cat", "dog"])[14] == "a photo of a dog."


def test_chunks_change_nothing_and_rows_are_means_of_unit_vectors(tower):
    rows = encode_names([f"name {i}" for i in range(11)], tower.encode, tower.tokenizer, CPU)
    sizes = [len(texts) for texts in tower.batches]
    assert max(sizes) == CHUNK < sum(sizes) == 11 * 14
    first = F.normalize(tower.encode(tower.tokenizer(prompts(["name 0"]))), dim=-1).mean(0)
    assert_close(rows[0], F.normalize(first, dim=0))
    assert_close(rows.norm(dim=1), torch.ones(11))


def test_a_name_is_encoded_once(tower):
    rows = tower.rows()
    first = rows.rows(["cat", "dog", "cat"])
    assert torch.equal(first[0], first[2])
    assert torch.equal(rows.rows(["dog"])[0], first[1])
    assert len(tower.batches) == 1
    assert len(tower.batches[0]) == 2 * len(PROMPTS)


def test_only_the_last_used_names_stay_in_memory(tower, monkeypatch):
    monkeypatch.setattr(module, "MOST_NAMES", 2)
    rows = tower.rows()
    rows.rows(["a", "b"])
    rows.rows(["a", "c"])  # b was used longest ago
    seen = len(tower.batches)
    rows.rows(["a", "c"])
    assert len(tower.batches) == seen
    rows.rows(["b"])
    assert len(tower.batches) == seen + 1


def test_the_next_process_takes_the_rows_from_the_store(tower, tmp_path):
    store = TextStore(tmp_path / "rows.safetensors")
    first = tower.rows(store).rows(["cat", "dog"])
    tower.batches.clear()
    assert torch.equal(tower.rows(store).rows(["dog", "cat"]), first.flip(0))
    assert not tower.batches
    tower.rows(store).rows(["cat", "bird"])
    assert tower.seen == {"bird."}


def test_a_name_in_memory_does_not_touch_the_store(tower, tmp_path, monkeypatch):
    store = TextStore(tmp_path / "rows.safetensors")
    rows = tower.rows(store)
    rows.rows(["cat"])
    monkeypatch.setattr(store, "read", lambda: pytest.fail("read again"))
    rows.rows(["cat"])
