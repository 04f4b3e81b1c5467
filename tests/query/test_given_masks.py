"""Masks from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.core.panoptic import ids_to_rgb
from retclip.core.vocabulary import Vocabulary
from retclip.query.given_masks import MOST_MASKS, GivenMasks
from tests.fakes import picture_of

WORDS = Vocabulary.from_names("w", ["red"])
PICTURE = picture_of(["red", "blue"], "photos/street.jpg")


def test_colours_and_grey_ids_give_the_same_masks(tmp_path: Path) -> None:
    ids = np.zeros(PICTURE.size, np.int32)
    ids[:, 10:20], ids[5:9, 30:40] = 9, 200
    masks = {}
    for kind, image in {
        "rgb": Image.fromarray(ids_to_rgb(ids)),
        "grey": Image.fromarray(ids.astype(np.uint8)),
        "wide": Image.fromarray(ids.astype(np.uint16)),
    }.items():
        (tmp_path / kind).mkdir()
        image.save(tmp_path / kind / "street.png")
        found = GivenMasks(tmp_path / kind).propose([PICTURE], WORDS)[0].masks
        assert found.origin == "given"
        masks[kind] = found.masks.numpy()
    expected = np.stack([ids == 9, ids == 200])
    for found in masks.values():
        assert np.array_equal(found, expected)


def test_a_picture_may_have_no_region(tmp_path: Path) -> None:
    Image.fromarray(np.zeros(PICTURE.size, np.uint8)).save(tmp_path / "street.png")
    found = GivenMasks(tmp_path).propose([PICTURE], WORDS)[0].masks
    assert tuple(found.masks.shape) == (0, *PICTURE.size)


@pytest.mark.parametrize(
    ("size", "code"), [(None, "E151"), ((10, 10), "E151"), ((PICTURE.size[1], PICTURE.size[0]), "E151")]
)
def test_missing_and_misfitting_files_are_named(tmp_path: Path, size: tuple[int, int] | None, code: str) -> None:
    if size is not None:
        Image.fromarray(np.ones(size, np.uint8)).save(tmp_path / "street.png")
    with pytest.raises(InputError, match=r"street\.jpg") as caught:
        GivenMasks(tmp_path).propose([PICTURE], WORDS)
    assert caught.value.code == code


def test_damaged_files_and_missing_folders_are_input_errors(tmp_path: Path) -> None:
    (tmp_path / "street.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InputError, match=r"street\.png"):
        GivenMasks(tmp_path).propose([PICTURE], WORDS)
    with pytest.raises(InputError) as caught:
        GivenMasks(tmp_path / "nowhere")
    assert caught.value.code == "E150"


def test_a_photo_is_not_taken_for_a_label_image(tmp_path: Path) -> None:
    picture = Picture(np.zeros((60, 60, 3), np.uint8), "0" * 64, "street.jpg")
    noise = np.random.default_rng(3).integers(0, 256, picture.pixels.shape, np.uint8)
    assert len(np.unique(noise.reshape(-1, 3), axis=0)) > MOST_MASKS
    Image.fromarray(noise).save(tmp_path / "street.png")
    with pytest.raises(InputError, match="is it a photo"):
        GivenMasks(tmp_path).propose([picture], WORDS)
