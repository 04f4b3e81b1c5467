"""Pictures with captions as samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from open_clip import SimpleTokenizer

from retclip.core.errors import InputError
from retclip.training.captioned import CaptionedPictures, CropSettings, cropped, relit
from tests.training.captions import COLOURS, drawn_pictures

STILL = CropSettings(size=32, least_area=1.0, flip=0.0, light=0.0)


@pytest.fixture
def images(tmp_path):
    return drawn_pictures(tmp_path, 6)


def test_a_batch_holds_pictures_beside_their_own_captions_and_phrases(images):
    pictures = CaptionedPictures(images, STILL)
    tokenizer = SimpleTokenizer()
    batch = pictures.batch(0, 6)
    assert batch.images.shape == (6, 3, 32, 32)
    assert batch.named.shape == (6, len(batch.phrases))
    for image, caption, named in zip(batch.images, batch.captions, batch.named, strict=True):
        middle = image[:, 16, 16].numpy()
        shown = next(name for name, colour in COLOURS.items() if abs(middle - np.asarray(colour)).max() < 9)
        assert shown in tokenizer.decode(caption.tolist())
        (phrase,) = batch.phrases[named]
        assert f"{shown} wall" in tokenizer.decode(phrase.tolist())


def test_the_bag_has_a_column_for_every_phrase_of_all_pictures(images):
    pictures = CaptionedPictures(images, STILL)
    batch = pictures.batch(0, 2)
    assert batch.bag.shape == (2, len(COLOURS))
    assert batch.named.shape == (2, 2)  # only what these two show
    assert batch.bag.sum(1).tolist() == [1, 1]
    assert pictures.frequencies.tolist() == pytest.approx([1 / 6] * 6)


def test_phrases_that_most_pictures_share_are_left_out(images):
    assert CaptionedPictures(images, STILL).phrases == sorted(f"{name} wall" for name in COLOURS)


def test_every_caption_and_prompt_is_drawn_some_time(images):
    pictures = CaptionedPictures(images, STILL)
    batches = [pictures.batch(number, 3) for number in range(30)]
    captions = torch.cat([batch.captions for batch in batches])
    assert len(captions.unique(dim=0)) == 12  # two captions of every picture
    phrases = torch.cat([batch.phrases for batch in batches])
    prompts = {tuple(row) for row in phrases.tolist()}
    assert len(prompts) > 6 * 8  # most of the 14 prompts of six phrases
    assert pictures.taught[captions.flatten()].all()
    assert pictures.taught[phrases.flatten()].all()
    assert not pictures.taught.all()


def test_a_batch_does_not_depend_on_those_before_it(images):
    crop, late = CropSettings(size=32), 5
    first, second = (CaptionedPictures(images, crop, seed=1) for _ in range(2))
    for number in range(late):
        first.batch(number, 4)
    one, other = first.batch(late, 4), second.batch(late, 4)
    for name in ("images", "captions", "phrases", "named", "bag"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert not torch.equal(one.images, CaptionedPictures(images, crop, seed=2).batch(late, 4).images)


def test_pictures_without_captions_are_left_out(tmp_path):
    images = drawn_pictures(tmp_path, 4)
    silent = [replace(image, captions=()) for image in images[:2]]
    assert len(CaptionedPictures(silent + images[2:], STILL)) == 2
    with pytest.raises(InputError) as raised:
        CaptionedPictures(silent, STILL)
    assert raised.value.code == "E230"


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    area=st.floats(0.01, 1.0),
    light=st.floats(0.0, 1.0),
    seed=st.integers(0, 99),
)
def test_a_crop_of_one_colour_is_of_one_colour(height, width, area, light, seed):
    pixels = np.full((height, width, 3), (10, 120, 200), np.uint8)
    part = cropped(pixels, CropSettings(24, area, 0.5, light), np.random.default_rng(seed))
    assert part.shape == (24, 24, 3)
    assert part.dtype == np.uint8
    assert len(np.unique(part.reshape(-1, 3), axis=0)) == 1


def test_a_whole_crop_is_the_picture_and_a_flip_its_mirror():
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    random = np.random.default_rng(0)
    assert np.array_equal(cropped(pixels, STILL, random), pixels)
    mirror = CropSettings(size=32, least_area=1.0, flip=1.0, light=0.0)
    assert np.array_equal(cropped(pixels, mirror, random), pixels[:, ::-1])


def test_light_changes_what_it_says():
    pixels = np.random.default_rng(0).integers(60, 180, (8, 8, 3)).astype(np.uint8)
    brighter, flat, grey = relit(pixels, (1.2, 1, 1)), relit(pixels, (1, 0, 1)), relit(pixels, (1, 1, 0))
    assert np.allclose(brighter, pixels * 1.2, atol=1)
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    assert np.ptp(flat) == 0
    assert np.array_equal(relit(pixels, (1, 1, 1)), pixels)
