"""CLIP's own tokenizer, and tokenizers from a folder."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from retclip.adapters.open_clip.loading import load_open_clip
from retclip.adapters.open_clip.prompts import CLIP_TOKENIZER
from retclip.adapters.open_clip.releases import CONFIG_FILE, find_release
from retclip.adapters.open_clip.tokenizers import load_tokenizer
from retclip.core.errors import ModelError
from retclip.core.images import read_picture
from retclip.query.similarity import class_probabilities
from tests.adapters.tiny_clip import write_tiny_clip

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog"]


@pytest.fixture
def folder(tmp_path):
    return write_tiny_clip(tmp_path / "clip", "vit")


def ask(folder, **text):
    file = json.loads((folder / CONFIG_FILE).read_text())
    file["model_cfg"]["text_cfg"].update(text)
    (folder / CONFIG_FILE).write_text(json.dumps(file))
    return folder


@pytest.fixture
def own_files(folder):
    """A folder whose tokenizer knows nine words."""
    from transformers import BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return ask(folder, hf_tokenizer_name="somebody/words")


def test_clips_own_tokens(folder, settings):
    tokenizer, name = load_tokenizer(find_release(settings, folder))
    assert name == CLIP_TOKENIZER
    tokens = tokenizer(["a photo of a cat.", "A  photo of a CAT."])
    assert tokens.shape == (2, 77)
    assert tokens[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407]
    assert torch.equal(tokens[0], tokens[1])


def test_the_files_of_a_folder_decide(own_files, settings):
    tokenizer, name = load_tokenizer(find_release(settings, own_files))
    assert tokenizer(["a photo of a dog"])[0, :7].tolist() == [2, 4, 5, 6, 4, 8, 3]
    (own_files / "vocab.txt").write_text("\n".join([*WORDS, "bird"]))
    assert load_tokenizer(find_release(settings, own_files))[1] not in (name, CLIP_TOKENIZER)
    rows = load_open_clip(settings, own_files, torch.device("cpu")).encode_names(["cat", "dog"])
    assert not torch.equal(rows[0], rows[1])


def refused(settings, folder):
    with pytest.raises(ModelError) as caught:
        load_open_clip(settings, folder, torch.device("cpu"))
    assert caught.value.code == "E222"
    return caught.value.why


def test_missing_files_are_named_without_a_network(own_files, settings):
    for path in own_files.glob("*token*"):
        path.unlink()
    (own_files / "vocab.txt").unlink()
    assert refused(settings, own_files)


@pytest.mark.parametrize("argument", ["trust_remote_code", "bpe_path", "cache_dir"])
def test_configurations_cannot_pass_files_or_code(folder, settings, argument):
    assert argument in refused(settings, ask(folder, tokenizer_kwargs={argument: "x"}))


def test_a_folders_own_code_is_never_run(own_files, settings, tmp_path):
    file = json.loads((own_files / "tokenizer_config.json").read_text())
    file |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (own_files / "tokenizer_config.json").write_text(json.dumps(file))
    marker = tmp_path / "ran"
    (own_files / "evil.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nclass Evil: pass\n")
    assert "custom code" in refused(settings, own_files)
    assert not marker.exists()


def test_more_tokens_than_the_tower_are_refused(folder, settings):
    assert "49,408" in refused(settings, ask(folder, vocab_size=1000))


def test_a_named_release_with_a_foreign_tokenizer_needs_a_folder(settings, tmp_path):
    release = find_release(replace(settings, model="ViT-L-14-CLIPA"), tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="not usable"):
        load_tokenizer(release)


@pytest.mark.photos
def test_recorded_vectors_of_clip_give_the_recorded_answer(test_data):
    """ViT-B/32's own image and text vectors: `a diagram` wins with .9928 of the probability at scale 100."""
    data = test_data / "clip_text" / "numpyclip_golden_vitb32" / "data"
    assert read_picture(data / "CLIP.png").pixels.shape[2] == 3
    image, texts = (
        torch.nn.functional.normalize(torch.from_numpy(np.load(data / f"{side}_features.npy", allow_pickle=False)))
        for side in ("image", "text")
    )
    scores = class_probabilities(image, texts, [1, 1, 1], 100.0)[0]
    torch.testing.assert_close(scores, torch.tensor([0.99279, 0.00421, 0.00300]), atol=1e-5, rtol=0)


@pytest.mark.photos
def test_every_recorded_label_is_whole_words_of_clips_vocabulary(test_data, folder, settings):
    labels = test_data / "clip_text" / "numpyclip_golden_vitb32" / "data" / "labels.csv"
    names = sorted({row[1] for row in csv.reader(labels.open())})
    tokenizer, _ = load_tokenizer(find_release(settings, folder))
    for name, row in zip(names, tokenizer(names), strict=True):
        tokens = row[row != 0].tolist()
        assert tokens[0] == 49406
        assert tokens[-1] == 49407
        assert tokenizer.decode(tokens[1:-1]).strip() == name
