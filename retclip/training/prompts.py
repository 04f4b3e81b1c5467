"""Prompts for training a promptable segmenter: one noisy box and one point per segment (SAM, appendix A)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import masks_to_boxes

from retclip.training.augmentation import JitterSettings
from retclip.training.coco_panoptic import JitteredStream, PanopticPicture


@dataclass(frozen=True)
class PromptSettings:
    """Which segments are prompted, and how.

    Attributes:
        segments: at most so many per picture, drawn anew each time.
        least_area: in pixels; crops leave slivers that nobody would point at.
        noise: standard deviation of a box's edges, relative to its width or height.
        most_noise: pixels that an edge moves at most.
    """

    segments: int = 8
    least_area: int = 32
    noise: float = 0.1
    most_noise: float = 20.0


class Prompts(NamedTuple):
    """Of n segments of one picture.

    boxes (n, 4) x0, y0, x1, y1 and points (n, 2) x, y are float32 in pixels; masks (n, S, S) bool are the answers.
    """

    boxes: Tensor
    points: Tensor
    masks: Tensor


class PromptedPicture(NamedTuple):
    """image (3, S, S) uint8 RGB and what is asked about it."""

    image: Tensor
    prompts: Prompts


def draw_prompts(masks: Tensor, settings: PromptSettings, random: np.random.Generator) -> Prompts:
    """Ask about some of the segments masks (n, S, S) bool; about none where all of them are too small."""
    large = (masks.flatten(1).sum(1) >= settings.least_area).nonzero()[:, 0]
    chosen = masks[large[torch.from_numpy(random.permutation(len(large)))[: settings.segments]]]
    boxes = noisy_boxes(chosen, settings.noise, settings.most_noise, random)
    return Prompts(boxes, _inner_points(chosen, random), chosen)


def noisy_boxes(masks: Tensor, noise: float, most: float, random: np.random.Generator) -> Tensor:
    """Boxes of masks (n, H, W) bool, none of them empty, with every edge moved a little.

    Args:
        masks: what the boxes enclose.
        noise: standard deviation of a move, relative to the box's width or height.
        most: pixels that an edge moves at most.
        random: source of the moves.

    Returns:
        (n, 4) float32 x0, y0, x1, y1 in pixels, inside the picture; half-open, so that a single pixel has a box.
    """
    height, width = masks.shape[1:]
    tight = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    sides = (tight[:, 2:] - tight[:, :2]).repeat(1, 2)
    moves = torch.from_numpy(random.standard_normal((len(masks), 4))).float() * noise * sides
    moved = (tight + moves.clamp(-most, most)).clamp(torch.zeros(4), torch.tensor([width, height, width, height]))
    # The noise may turn a thin box inside out.
    return torch.cat([torch.minimum(moved[:, :2], moved[:, 2:]), torch.maximum(moved[:, :2], moved[:, 2:])], 1)


def _inner_points(masks: Tensor, random: np.random.Generator) -> Tensor:
    """Centre of one random pixel of each mask."""
    places = [random.choice(np.flatnonzero(mask)) for mask in masks.numpy()]
    rows, columns = np.divmod(np.array(places, np.int64), masks.shape[-1])
    return torch.from_numpy(np.stack([columns, rows], 1) + 0.5).float()


class PromptedStream(Dataset[PromptedPicture]):
    """An endless, shuffled, augmented, prompted stream: item k is a function of (seed, k) alone.

    Args:
        pictures: annotated photos.
        jitter: augmentation; its size is the side of the network's input.
        prompts: how many and how noisy.
        seed: of all choices.
    """

    def __init__(
        self, pictures: list[PanopticPicture], jitter: JitterSettings, prompts: PromptSettings, seed: int
    ) -> None:
        self._samples, self._prompts, self._seed = JitteredStream(pictures, jitter, seed), prompts, seed

    def __getitem__(self, index: int) -> PromptedPicture:
        sample = self._samples[index]
        random = np.random.default_rng([self._seed, 3, index])
        return PromptedPicture(sample.image, draw_prompts(sample.targets.masks, self._prompts, random))
