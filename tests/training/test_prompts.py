"""Boxes and points that stand for masks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import read_annotations
from retclip.training.prompts import PromptedStream, PromptSettings, draw_prompts, noisy_boxes

EXACT = PromptSettings(segments=10, least_area=1, noise=0.0)


def rectangles(*corners, size=64):
    masks = torch.zeros(len(corners), size, size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, corners, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


def test_without_noise_a_box_encloses_its_mask_even_one_pixel():
    corners = [(3, 5, 20, 9), (63, 0, 64, 64), (7, 7, 8, 8)]
    boxes = noisy_boxes(rectangles(*corners), 0.0, 20.0, np.random.default_rng(0))
    assert boxes.tolist() == [list(corner) for corner in corners]


@given(st.integers(0, 1000), st.floats(0.01, 2.0), st.floats(1.0, 30.0))
def test_noisy_boxes_stay_near_inside_and_the_right_way_round(seed, noise, most):
    masks = rectangles((3, 5, 20, 9), (60, 0, 64, 64), (0, 0, 64, 64))
    exact = noisy_boxes(masks, 0.0, most, np.random.default_rng(seed))
    boxes = noisy_boxes(masks, noise, most, np.random.default_rng(seed))
    assert bool((boxes[:, :2] <= boxes[:, 2:]).all())
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes - exact).abs().max() <= most + 1e-4
    assert not torch.equal(boxes, exact)


def test_the_noise_is_as_large_as_asked():
    masks = rectangles((20, 28, 40, 36)).repeat(4000, 1, 1)
    moves = noisy_boxes(masks, 0.1, 20.0, np.random.default_rng(0)) - torch.tensor([20.0, 28, 40, 36])
    assert moves.std(0).tolist() == pytest.approx([2.0, 0.8, 2.0, 0.8], rel=0.05)
    assert moves.mean(0).abs().max() < 0.1


@given(st.integers(0, 1000))
def test_every_point_lies_in_its_mask_and_every_mask_is_asked_once(seed):
    masks = rectangles((3, 5, 20, 9), (60, 0, 64, 64), (0, 40, 9, 64))
    prompts = draw_prompts(masks, EXACT, np.random.default_rng(seed))
    x, y = (prompts.points - 0.5).long().unbind(1)
    assert prompts.masks[torch.arange(3), y, x].all()
    assert prompts.masks.sum(0).max() == 1
    assert torch.equal(prompts.masks.any(0), masks.any(0))


def test_slivers_are_not_asked_about_and_no_more_than_wanted():
    masks = rectangles((0, 0, 8, 4), (10, 0, 18, 4), (20, 0, 28, 4), (30, 0, 31, 31))
    prompts = draw_prompts(masks, PromptSettings(segments=2, least_area=32), np.random.default_rng(0))
    assert prompts.boxes.shape == (2, 4)
    assert prompts.points.shape == (2, 2)
    assert prompts.masks.shape == (2, 64, 64)
    assert (prompts.masks.flatten(1).sum(1) == 32).all()
    none = draw_prompts(masks, PromptSettings(least_area=33), np.random.default_rng(0))
    assert [len(part) for part in none] == [0, 0, 0]


def test_the_stream_depends_on_seed_and_place_alone(folders, vocabulary):
    pictures = read_annotations(folders, vocabulary)
    jitter = JitterSettings(size=48, smallest=0.9, largest=1.2)
    whole, again, other = (PromptedStream(pictures, jitter, EXACT, seed) for seed in (1, 1, 2))
    items = [whole[place] for place in range(4)]
    late = again[3]
    assert torch.equal(items[3].image, late.image)
    assert all(torch.equal(a, b) for a, b in zip(items[3].prompts, late.prompts, strict=True))
    assert not torch.equal(items[3].prompts.points, other[3].prompts.points)
    assert items[0].image.shape == (3, 48, 48)
