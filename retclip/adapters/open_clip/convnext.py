"""ConvNeXt image towers of any size, with the key names of open_clip's own.

open_clip builds the ConvNeXts that timm has a name for. For others its configuration file gets a table of ours in the
place of the name: `"vision_cfg": {"convnext": {"depths": [2, 2, 4, 2], "dims": [32, 64, 128, 192]}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from open_clip import CLIP
from timm.layers import Mlp
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

CONFIG_KEY = "convnext"
# Four times the blocks and twice the channels of the largest one published, ConvNeXt-XXL.
_MOST_BLOCKS, _MOST_CHANNELS = 120, 6144
_SMALLEST_RESNET = {"layers": (1, 1, 1, 1), "width": 2, "image_size": 32, "head_width": 64}

Four = tuple[int, int, int, int]


@dataclass(frozen=True)
class ConvNeXtTower:
    """Blocks and channels of the four stages."""

    depths: Four
    dims: Four

    @property
    def channels(self) -> Four:
        """Of res2 .. res5."""
        return self.dims

    @classmethod
    def from_config(cls, table: Any) -> ConvNeXtTower:
        """The tower that a configuration file describes. Raises ValueError for anything else."""
        if not isinstance(table, Mapping) or set(table) != {"depths", "dims"}:
            raise ValueError(f"'{CONFIG_KEY}' needs the lists depths and dims and nothing else.")
        return cls(_four(table["depths"], "depths", _MOST_BLOCKS), _four(table["dims"], "dims", _MOST_CHANNELS))

    def to_config(self) -> dict[str, Any]:
        """What `from_config` reads."""
        return {"depths": list(self.depths), "dims": list(self.dims)}


class ConvNeXtVisual(nn.Module):
    """ConvNeXt image tower with open_clip's key names: `trunk` from timm, `head.mlp` into the text space."""

    def __init__(self, tower: ConvNeXtTower, dim: int) -> None:
        super().__init__()
        self.trunk = ConvNeXt(depths=tower.depths, dims=tower.dims, num_classes=0)
        self.head = nn.Sequential()
        self.head.add_module("mlp", Mlp(tower.dims[-1], 2 * dim, dim, bias=(True, False)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> (B, D), ordinary CLIP embedding."""
        embedded: Tensor = self.head(self.trunk(images))
        return embedded


def clip_with_convnext(tower: ConvNeXtTower, config: Mapping[str, Any]) -> CLIP:
    """A CLIP with random weights: this image tower, everything else as open_clip's `model_cfg` says."""
    clip = CLIP(**{**config, "vision_cfg": _SMALLEST_RESNET})
    # open_clip insists on a tower that it knows; the smallest makes way.
    clip.visual = ConvNeXtVisual(tower, config["embed_dim"])
    return clip


def _four(values: Any, name: str, most: int) -> Four:
    if not isinstance(values, list) or len(values) != 4:
        raise ValueError(f"'{name}' needs four numbers, got {values!r}.")
    first, second, third, fourth = values
    if not all(type(value) is int and 1 <= value <= most for value in values):
        raise ValueError(f"'{name}' needs whole numbers from 1 to {most:,}, got {values!r}.")
    return first, second, third, fourth
