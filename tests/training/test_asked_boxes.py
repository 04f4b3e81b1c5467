"""Samples for a detector."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert
from transformers import BertTokenizer

from retclip.adapters.grounding_dino.network import token_spans
from retclip.core.errors import InputError
from retclip.core.vocabulary import Category, Vocabulary
from retclip.training.asked_boxes import AskedBoxes, ViewSettings
from retclip.training.coco_panoptic import read_annotations
from retclip.training.word_pieces import write_word_pieces

WHOLE = ViewSettings(height=64, width=80, smallest=1.0, flip=0.0, least_area=1, ask_all=1.0)
COLOURS = {"sky": (120, 170, 250), "ball": (220, 40, 40), "box": (30, 140, 60)}
FIRST = {"clouds": "sky", "crate": "box"}


@pytest.fixture
def tokenizer(tmp_path):
    write_word_pieces(tmp_path / "vocab.txt", ["sky", "clouds", "ball", "box"])
    return BertTokenizer.from_pretrained(tmp_path, local_files_only=True)


@pytest.fixture
def stream(folders, vocabulary, tokenizer):
    def opened(settings=WHOLE, vocabulary=vocabulary, seed=0, most_tokens=32):
        pictures = read_annotations(folders, vocabulary)
        return AskedBoxes(pictures, vocabulary, lambda t: token_spans(tokenizer, t), most_tokens, settings, seed)

    return opened


def named(sample, tokenizer):
    """First name of the class of every target, read back from the prompt's tokens."""
    ids = torch.tensor(tokenizer(sample.prompt)["input_ids"])
    words = [tokenizer.decode(ids[row[: len(ids)]]) for row in sample.targets.tokens]
    return [FIRST.get(word, word) for word in words]


def test_boxes_enclose_the_visible_pixels_of_the_class_they_name(stream, tokenizer):
    for sample in (stream()[0], stream(replace(WHOLE, flip=1.0))[1]):
        assert sample.image.shape == (3, 64, 80)
        names = named(sample, tokenizer)
        assert sorted(names) == ["ball", "box", "sky"]
        corners = box_convert(sample.targets.boxes, "cxcywh", "xyxy") * torch.tensor([80, 64, 80, 64])
        for name, box in zip(names, corners.round().int().tolist(), strict=True):
            shown = (sample.image.permute(1, 2, 0) == torch.tensor(COLOURS[name], dtype=torch.uint8)).all(2).numpy()
            rows, columns = np.nonzero(shown)
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_crowds_are_not_asked_for(stream):
    assert {len(stream(seed=seed)[0].targets.boxes) for seed in range(4)} == {3}


def test_an_item_depends_on_seed_and_number_alone(stream):
    settings = replace(WHOLE, smallest=0.5, flip=0.5, ask_all=0.5)
    first, again, other = stream(settings)[7], stream(settings)[7], stream(settings)[9]
    assert torch.equal(first.image, again.image)
    assert first.prompt == again.prompt
    assert torch.equal(first.targets.boxes, again.targets.boxes)
    assert not torch.equal(first.image, other.image)


def test_windows_keep_the_views_shape_and_enlarge(stream):
    samples = [stream(replace(WHOLE, height=32, width=32, smallest=0.3))[number] for number in range(12)]
    assert {sample.image.shape for sample in samples} == {(3, 32, 32)}
    assert all(((sample.targets.boxes >= 0) & (sample.targets.boxes <= 1)).all() for sample in samples)
    assert {len(sample.targets.boxes) for sample in samples} > {3}


def test_what_hardly_shows_is_not_asked_for(stream):
    assert len(stream(replace(WHOLE, least_area=64 * 80))[0].targets.boxes) == 0


def test_present_classes_are_always_asked_by_any_of_their_names(stream):
    prompts = {stream(replace(WHOLE, ask_all=0.0))[number].prompt for number in range(20)}
    assert all("ball" in prompt and ("sky" in prompt or "clouds" in prompt) for prompt in prompts)
    assert {"ball. box. clouds.", "ball. crate. sky."} <= prompts


def test_absent_classes_are_asked_at_times(folders, stream):
    more = Vocabulary("more", (*_categories(), Category(91, ("moon",)), Category(92, ("star",))))
    drawn = [stream(replace(WHOLE, ask_all=0.3), more)[number].prompt for number in range(40)]
    assert {"moon" in prompt for prompt in drawn} == {True, False}
    assert any("moon" in prompt and "star" in prompt for prompt in drawn)


def test_a_name_that_two_classes_share_is_not_used(stream):
    shared = Vocabulary("shared", (Category(7, ("sky", "ball")), Category(21, ("ball",)), Category(90, ("box",))))
    prompts = {stream(vocabulary=shared)[number].prompt for number in range(10)}
    assert prompts == {"ball. box. sky."}


def test_classes_that_one_prompt_cannot_hold_are_refused(stream):
    with pytest.raises(InputError, match="do not make one prompt") as raised:
        stream(most_tokens=6)
    assert raised.value.code == "E176"


def _categories():
    return (Category(7, ("sky", "clouds"), is_thing=False), Category(21, ("ball",)), Category(90, ("box", "crate")))
