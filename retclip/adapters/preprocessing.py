"""Pictures as network input: scaled, normalised and padded, then run in groups of one size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from retclip.ports.encoders import DenseFeatures

Size = tuple[int, int]
Channels = tuple[float, float, float]


@dataclass(frozen=True)
class NetworkInput:
    """pixels (3, H, W) float32, normalised, padded right and below; content: (height, width) of the picture in it."""

    pixels: Tensor
    content: Size


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes input.

    Attributes:
        short_side, long_side: the short side is scaled to `short_side` unless the long one would exceed `long_side`.
        mean, std: RGB normalisation on the 0..1 scale.
        multiple: sides are padded with zeros to multiples of it.
        resampling: Pillow's filter, antialiased.
    """

    short_side: int
    long_side: int
    mean: Channels
    std: Channels
    multiple: int
    resampling: Image.Resampling

    def __call__(self, image: npt.NDArray[np.uint8]) -> NetworkInput:
        """RGB (H, W, 3) -> input."""
        height, width = scaled_size(image.shape[0], image.shape[1], self.short_side, self.long_side)
        resized = Image.fromarray(image).resize((width, height), self.resampling)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        padding = (0, -width % self.multiple, 0, -height % self.multiple)
        return NetworkInput(nn.functional.pad((pixels - mean) / std, padding), (height, width))


def scaled_size(height: int, width: int, short_side: int, long_side: int) -> Size:
    """Scale the short side to `short_side` unless the long side would exceed `long_side` (detectron2's rule)."""
    scale = short_side / min(height, width)
    if scale * max(height, width) > long_side:
        scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def dense_features(
    inputs: Sequence[NetworkInput], forward: Callable[[Tensor], Tensor], stride: int, device: torch.device
) -> list[DenseFeatures]:
    """Feature maps in the order of the inputs; those of one padded size share a pass.

    Args:
        forward: (B, 3, H, W) on the device -> (B, C, H / stride, W / stride).
        stride: input pixels per feature cell.
    """
    groups: defaultdict[Size, list[int]] = defaultdict(list)
    for index, item in enumerate(inputs):
        groups[int(item.pixels.shape[1]), int(item.pixels.shape[2])].append(index)
    results: dict[int, DenseFeatures] = {}
    for members in groups.values():
        maps = forward(torch.stack([inputs[index].pixels for index in members]).to(device))
        for index, values in zip(members, maps, strict=True):
            height, width = inputs[index].content
            results[index] = DenseFeatures(values, (height / stride, width / stride))
    return [results[index] for index in range(len(inputs))]
