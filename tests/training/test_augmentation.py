import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.training.augmentation import PADDING_COLOUR, PADDING_ID, JitterSettings, jitter, jittered_size


@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 50), size=st.sampled_from([32, 48]))
@settings(deadline=None, max_examples=60)
def test_pixels_and_ids_move_together(height, width, seed, size):
    random = np.random.default_rng(seed)
    ids = np.repeat(random.integers(1, 200, (height, 1), dtype=np.int32), width, axis=1)
    pixels = np.repeat(ids[..., None], 3, axis=2).astype(np.uint8)
    squares, places = jitter(pixels, ids, JitterSettings(size=size), np.random.default_rng(seed))
    assert squares.shape == (size, size, 3)
    assert places.shape == (size, size)
    assert (squares[places == PADDING_ID] == PADDING_COLOUR).all()
    assert set(np.unique(places)) - {PADDING_ID} <= set(np.unique(ids))
    inside = places != PADDING_ID
    assert inside.any()
    if height == 1:  # one colour, one id: interpolation invents nothing
        assert (squares[inside] == ids[0, 0]).all()


def test_the_same_random_state_gives_the_same_result():
    ids = np.arange(30 * 40, dtype=np.int32).reshape(30, 40)
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    first = jitter(pixels, ids, JitterSettings(size=64), np.random.default_rng(4))
    again = jitter(pixels, ids, JitterSettings(size=64), np.random.default_rng(4))
    other = jitter(pixels, ids, JitterSettings(size=64), np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_flipping_mirrors_left_and_right():
    ids = np.arange(32 * 32, dtype=np.int32).reshape(32, 32)
    pixels = np.zeros((32, 32, 3), np.uint8)
    fixed = {"size": 32, "smallest": 1.0, "largest": 1.0}
    _, plain = jitter(pixels, ids, JitterSettings(**fixed, flip=0.0), np.random.default_rng(0))
    _, mirrored = jitter(pixels, ids, JitterSettings(**fixed, flip=1.0), np.random.default_rng(0))
    assert np.array_equal(plain, ids)
    assert np.array_equal(mirrored, ids[:, ::-1])


def test_large_scales_crop_and_small_ones_pad():
    ids = np.ones((20, 30), np.int32)
    pixels = np.full((20, 30, 3), 7, np.uint8)
    _, large = jitter(pixels, ids, JitterSettings(size=64, smallest=2.0, largest=2.0), np.random.default_rng(0))
    _, small = jitter(pixels, ids, JitterSettings(size=64, smallest=0.1, largest=0.1), np.random.default_rng(0))
    assert (large == 1).all()
    assert (small == 1).sum() == np.prod(jittered_size(20, 30, 0.1, 64))
    assert small[0, 0] == 1
    assert small[-1, -1] == PADDING_ID
