"""Pictures as network input."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from retclip.adapters.preprocessing import Preprocessing, dense_features

GREY = Preprocessing(32, 64, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0), 8, Image.Resampling.BILINEAR)


@given(st.integers(1, 300), st.integers(1, 300))
def test_padding_is_less_than_one_multiple_and_zero_after_normalisation(height, width):
    item = GREY(np.full((height, width, 3), 255, np.uint8))
    rows, columns = item.content
    padded = item.pixels.shape[1:]
    assert all(inner <= outer < inner + 8 and outer % 8 == 0 for inner, outer in zip(item.content, padded, strict=True))
    for channel, value in zip(item.pixels, (2.0, 1.0, 0.5), strict=True):
        assert (channel[:rows, :columns] == value).all()
        assert channel.sum() == value * rows * columns


def test_equal_sizes_share_a_pass_and_come_back_in_order():
    shades = (10, 200, 60, 90)
    sizes = ((32, 32), (32, 48), (32, 32), (32, 47))  # the last is padded to the size of the second
    inputs = [GREY(np.full((*size, 3), shade, np.uint8)) for size, shade in zip(sizes, shades, strict=True)]
    passes = []

    def forward(pixels):
        passes.append(len(pixels))
        return torch.nn.functional.avg_pool2d(pixels, 8)

    found = dense_features(inputs, forward, 8, torch.device("cpu"))
    assert passes == [2, 2]
    for features, item, shade in zip(found, inputs, shades, strict=True):
        assert features.extent == (item.content[0] / 8, item.content[1] / 8)
        assert features.values[2, 0, 0].item() == pytest.approx(shade / 255 - 0.5, abs=1e-6)


def test_no_inputs_need_no_pass():
    assert dense_features([], lambda _: pytest.fail("called"), 8, torch.device("cpu")) == []
