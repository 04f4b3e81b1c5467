import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from retclip.adapters.grounding_dino.prompts import Span, TokenSpans, compose_prompts, sanitised
from retclip.training.word_pieces import write_word_pieces
from tests.absence import absent


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_word_pieces(folder / "vocab.txt", ["cat", "dog", "traffic", "light"])
    return BertTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def token_spans(tokenizer: BertTokenizer) -> TokenSpans:
    def spans(texts: list[str]) -> list[list[Span]]:
        return tokenizer(texts, return_offsets_mapping=True)["offset_mapping"]

    return spans


def test_ends_of_phrases_are_taken_out_of_names():
    assert sanitised(" St.  Bernard\t") == "st bernard"
    assert sanitised("who? me, U.S.") == "who me, us"
    assert sanitised(" .?. ") == ""


def test_a_prompt_is_the_sorted_phrases_with_full_stops(token_spans: TokenSpans):
    (prompt,) = compose_prompts(["Traffic light", "cat"], token_spans, 240)
    assert prompt.text == "cat. traffic light."
    assert prompt.phrases == (1, 0)
    # [CLS] cat . traffic light . [SEP]
    assert prompt.tokens == ((1,), (3, 4))
    assert prompt.chunk == "211beb154b74"


def test_repeats_are_asked_under_their_first_index_and_empty_names_not_at_all(token_spans: TokenSpans):
    (prompt,) = compose_prompts(["", "dog", "Dog.", "cat", " ? ", "\u0301", "DOG"], token_spans, 240)
    assert prompt.text == "cat. dog."
    assert prompt.phrases == (3, 1)


@pytest.mark.parametrize("phrases", [[], [""], ["..", "?"]])
def test_nothing_to_ask_gives_no_prompt(phrases: list[str], token_spans: TokenSpans):
    assert compose_prompts(phrases, token_spans, 240) == []


def test_a_name_longer_than_a_prompt_is_cut_to_its_first_tokens(token_spans: TokenSpans):
    long = " ".join(["cat"] * 40)
    prompts = compose_prompts([long, "dog", long + " dog"], token_spans, 10)
    # The two long names are the same once cut; [CLS], [SEP] and one full stop leave room for seven words.
    assert [prompt.text for prompt in prompts] == [" ".join(["cat"] * 7) + ".", "dog."]
    assert [prompt.phrases for prompt in prompts] == [(0,), (1,)]


def test_special_tokens_written_in_names_are_words(token_spans: TokenSpans, tokenizer: BertTokenizer):
    (prompt,) = compose_prompts(["[SEP]", "[CLS] cat"], token_spans, 240)
    ids = tokenizer(prompt.text)["input_ids"]
    assert ids.count(102) == ids.count(101) == 1


names = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["cat", "Dog.", "a,b"]), max_size=30
)


@given(names, st.sampled_from([8, 20, 240]), st.randoms(use_true_random=False))
def test_any_names_in_any_order(
    token_spans: TokenSpans, tokenizer: BertTokenizer, asked: list[str], most: int, rng: random.Random
):
    prompts = compose_prompts(asked, token_spans, most)
    for prompt in prompts:
        ids = tokenizer(prompt.text)["input_ids"]
        assert len(ids) <= most
        ends = {101, 102, 1012, 1029}
        assert all(positions and not ends & {ids[position] for position in positions} for positions in prompt.tokens)
        # Every token belongs to one phrase, or is an end.
        owned = sorted(position for positions in prompt.tokens for position in positions)
        assert owned == [position for position, token in enumerate(ids) if token not in ends]
    found = [index for prompt in prompts for index in prompt.phrases]
    assert len(found) == len(set(found))
    shuffled = rng.sample(asked, len(asked))
    again = compose_prompts(shuffled, token_spans, most)
    assert [prompt.text for prompt in again] == [prompt.text for prompt in prompts]
    by_text = [sanitised(shuffled[index]) for prompt in again for index in prompt.phrases]
    if most == 240:
        assert by_text == [sanitised(asked[index]) for index in found]


@pytest.mark.parametrize("count", [1, 40, 300, 1200])
def test_prompts_are_full_but_not_too_long(count: int, token_spans: TokenSpans, tokenizer: BertTokenizer):
    asked = [f"thing {index:04d}" for index in range(count)]
    prompts = compose_prompts(asked, token_spans, 240)
    assert sorted(index for prompt in prompts for index in prompt.phrases) == list(range(count))
    lengths = [len(tokenizer(prompt.text)["input_ids"]) for prompt in prompts]
    longest = max(len(tokenizer(name)["input_ids"]) for name in asked) - 1
    assert max(lengths) <= 240
    assert all(length > 240 - longest for length in lengths[:-1])


def test_real_names_and_the_real_vocabulary(test_data: Path):
    vocabulary = test_data / "text" / "bert-base-uncased-vocab.txt"
    listing = test_data / "text" / "openimages-class-descriptions-boxable.csv"
    if not (vocabulary.is_file() and listing.is_file()):
        absent(f"{vocabulary.parent} lacks the vocabulary or the class names of Open Images")
    tokenizer = BertTokenizer(vocab=str(vocabulary))
    asked = [line.split(",", 1)[1] for line in listing.read_text().splitlines()]
    prompts = compose_prompts(asked, lambda texts: tokenizer(texts, return_offsets_mapping=True)["offset_mapping"], 240)
    assert {index for prompt in prompts for index in prompt.phrases} == set(range(len(asked)))
    for prompt in prompts:
        ids = tokenizer(prompt.text)["input_ids"]
        assert len(ids) <= 240
        for index, positions in zip(prompt.phrases, prompt.tokens, strict=True):
            assert [ids[position] for position in positions] == tokenizer(sanitised(asked[index]))["input_ids"][1:-1]
