"""The vocabulary of word pieces."""

from transformers import BertTokenizer

from retclip.training.word_pieces import write_word_pieces


def test_words_get_one_token_and_others_are_spelled(tmp_path):
    length = write_word_pieces(tmp_path / "vocab.txt", ["fish", "red", "fish", "a"])
    tokenizer = BertTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert len(tokenizer.get_vocab()) == length == 1030 + 2 * 36 + 2
    assert tokenizer.tokenize("red fish.") == ["red", "fish", "."]
    assert tokenizer.tokenize("cod") == ["c", "##o", "##d"]
    assert tokenizer("red.")["input_ids"] == [101, length - 1, 1012, 102]
