"""Product pictures."""

import json

import numpy as np

from retclip.corpora import open_corpus
from retclip.corpora.playground.classes import CLASSES
from retclip.corpora.playground.products import SIDE, compose_product, write_products


def test_one_thing_stands_before_a_backdrop_that_is_no_segment():
    for number in range(12):
        scene = compose_product(number)
        assert scene.pixels.shape == (SIDE, SIDE, 3)
        (column,) = scene.classes
        assert CLASSES[column].is_thing
        assert set(np.unique(scene.ids)) == {0, 1}
        names = (CLASSES[column].name, *CLASSES[column].aliases)
        assert all(any(name in caption for name in names) for caption in scene.captions)


def test_a_picture_is_a_function_of_its_number():
    assert np.array_equal(compose_product(5).pixels, compose_product(5).pixels)
    assert not np.array_equal(compose_product(5).pixels, compose_product(6).pixels)
    assert not np.array_equal(compose_product(5).pixels, compose_product(5, seed=1).pixels)


def test_what_is_written_is_a_corpus_of_captions(tmp_path):
    write_products(tmp_path, "train", 3)
    images = list(open_corpus("coco", tmp_path, "train2017").images())
    assert [image.captions for image in images] == [compose_product(number).captions for number in range(3)]
    assert all(np.array_equal(image.read().pixels, compose_product(n).pixels) for n, image in enumerate(images))


def test_splits_share_no_picture(tmp_path):
    write_products(tmp_path, "train", 1)
    write_products(tmp_path, "val", 1)
    train, val = (
        json.loads((tmp_path / "annotations" / f"captions_{split}2017.json").read_text()) for split in ("train", "val")
    )
    assert train["images"] == val["images"]
    one, other = (next(open_corpus("coco", tmp_path, f"{split}2017").images()).read() for split in ("train", "val"))
    assert not np.array_equal(one.pixels, other.pixels)
