import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from retclip.segmenters.layers.positions import sine_positions


@given(height=st.integers(1, 9), width=st.integers(1, 9), quarter=st.integers(1, 8))
def test_formula_of_every_entry(height, width, quarter):
    channels, half = 4 * quarter, 2 * quarter
    encoded = sine_positions(height, width, channels)
    assert encoded.shape == (channels, height, width)
    for channel in range(channels):
        axis, place = divmod(channel, half)
        size = height if axis == 0 else width
        frequency = 10_000 ** (2 * (place // 2) / half)
        wave = math.sin if place % 2 == 0 else math.cos
        line = torch.tensor([wave(2 * math.pi * (i + 1) / (size + 1e-6) / frequency) for i in range(size)])
        expected = line[:, None].expand(height, width) if axis == 0 else line.expand(height, width)
        assert_close(encoded[channel], expected, atol=1e-5, rtol=0)
