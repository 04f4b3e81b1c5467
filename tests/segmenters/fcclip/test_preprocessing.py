import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.core.masks import Frame
from retclip.segmenters.fcclip.preprocessing import (
    PIXEL_MEAN,
    Resolution,
    full_size,
    normalised_batch,
    padded_size,
    resize_picture,
    resized_size,
)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_one_side_meets_its_limit_and_none_exceeds_it(height, width):
    resolution = Resolution()
    new_height, new_width = resized_size(height, width, resolution)
    assert max(new_height, new_width) <= resolution.long_side
    assert min(new_height, new_width) <= resolution.short_side
    assert min(new_height, new_width) == resolution.short_side or max(new_height, new_width) == resolution.long_side
    assert resized_size(width, height, resolution) == (new_width, new_height)


@given(sizes=st.lists(st.tuples(st.integers(1, 999), st.integers(1, 999)), min_size=1, max_size=5))
def test_padding_reaches_the_next_multiple_of_32(sizes):
    padded = padded_size(sizes)
    for axis in (0, 1):
        longest = max(size[axis] for size in sizes)
        assert padded[axis] % 32 == 0
        assert longest <= padded[axis] < longest + 32


def test_padding_is_zero_after_normalisation():
    images = [torch.full((3, 32, 40), 255, dtype=torch.uint8), torch.zeros(3, 20, 64, dtype=torch.uint8)]
    batch = normalised_batch(images, torch.device("cpu"))
    assert batch.shape == (2, 3, 32, 64)
    assert (batch[0, :, :, 40:] == 0).all()
    assert (batch[1, :, 20:] == 0).all()
    assert (batch[0, :, :, :40] > 1.5).all()
    assert (batch[1, :, :20] < -1.4).all()


def test_mean_colour_becomes_zero():
    image = torch.tensor(PIXEL_MEAN).round().to(torch.uint8).view(3, 1, 1).expand(3, 32, 32)
    assert normalised_batch([image], torch.device("cpu")).abs().max() < 0.01


def test_a_picture_of_the_right_size_is_not_resampled():
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert resize_picture(picture, (20, 30)) is picture
    assert resize_picture(picture, (10, 15)).shape == (10, 15, 3)


@pytest.mark.parametrize("output", [(40, 61), (90, 133), (200, 100)])
def test_masks_go_back_in_two_steps_with_the_crop_between(output):
    masks = torch.randn(3, 16, 24)
    frame = Frame((64, 96), (61, 90), output)
    whole = F.interpolate(masks[None], (64, 96), mode="bilinear")[..., :61, :90]
    assert_close(full_size(masks, frame), F.interpolate(whole, output, mode="bilinear")[0])
    assert_close(full_size(masks, Frame((64, 96), (61, 90), (61, 90))), whole[0])
