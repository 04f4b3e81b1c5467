"""What promptable networks share: a picture becomes a square once, then prompts are decoded a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from retclip.core.errors import ModelError, require
from retclip.core.masks import Frame, MaskSet, Size
from retclip.ports.masking import BoxMasks

Rgb = tuple[float, float, float]


@dataclass(frozen=True)
class SquareInput:
    """How a network takes pictures.

    Attributes:
        side: of the square input in pixels.
        mean, std: RGB normalisation on the 0..255 scale.
        padded: True = the longest side becomes `side` and the rest is padded with zeros on the right and below (SAM);
            False = both sides become `side`, whatever the shape (SAM 2).
    """

    side: int
    mean: Rgb
    std: Rgb
    padded: bool

    def content(self, size: Size) -> Size:
        """(height, width) of a picture of `size` inside the square; a sliver keeps one pixel."""
        if not self.padded:
            return self.side, self.side
        scale = self.side / max(size)
        return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))

    def frame(self, size: Size) -> Frame | None:
        """What the masks of a picture of `size` cover: the padded square, or exactly the picture."""
        return Frame((self.side, self.side), self.content(size), size) if self.padded else None

    def pixels(self, picture: npt.NDArray[np.uint8]) -> Tensor:
        """RGB (H, W, 3) -> normalised (1, 3, side, side), as SAM's own predictor does (Pillow's bilinear filter)."""
        height, width = self.content((picture.shape[0], picture.shape[1]))
        resized = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float()
        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        padding = (0, self.side - width, 0, self.side - height)
        return torch.nn.functional.pad((values - mean) / std, padding)[None]

    def places(self, xy: Tensor, size: Size) -> Tensor:
        """Coordinates (N, 2 or 4) x, y, ... in pixels of a picture of `size` -> in pixels of the square."""
        height, width = self.content(size)
        scale = xy.new_tensor([width / size[1], height / size[0]])
        return xy * scale.repeat(xy.shape[1] // 2)


class PromptableNetwork(Protocol):
    """A network that embeds a picture once and answers many prompts on it."""

    name: str
    weights_sha256: str
    device: torch.device
    square: SquareInput

    def embed(self, pixels: Tensor) -> Any:
        """(1, 3, side, side) -> whatever the decoder reads."""
        ...

    def decode_boxes(self, embedding: Any, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes (n, 4) in pixels of the square -> logits (n, h, w) and predicted IoU (n,)."""
        ...

    def decode_points(self, embedding: Any, points: Tensor) -> tuple[Tensor, Tensor]:
        """Points (n, 2) in pixels of the square -> logits (n, m, h, w) and predicted IoU (n, m)."""
        ...


class PromptedMasker:
    """A BoxMasker and PointMasker on any promptable network.

    Pictures are embedded one by one: nothing depends on the other pictures of a batch, one picture of 1,024 x 1,024
    fills a device, and global attention over its 4,096 cells alone takes 0.8 GB in ViT-B.
    """

    def __init__(self, network: PromptableNetwork, prompts: int) -> None:
        """`prompts` are decoded at once; each holds a copy of the embedding, 4 MB."""
        self._network = network
        self._prompts = prompts

    @property
    def name(self) -> str:
        """Architecture and first digits of the weights' digest."""
        return self._network.name

    @property
    def weights_sha256(self) -> str:
        """Digest of the network's tensors (core/weights.py)."""
        return self._network.weights_sha256

    def masks(self, pictures: Sequence[npt.NDArray[np.uint8]], boxes: Sequence[Tensor]) -> list[BoxMasks]:
        """See `BoxMasker`; a picture without boxes costs nothing."""
        return [self._box_masks(picture, asked) for picture, asked in zip(pictures, boxes, strict=True)]

    def _box_masks(self, picture: npt.NDArray[np.uint8], boxes: Tensor) -> BoxMasks:
        _require_prompts("boxes", boxes, 4)
        if not len(boxes):
            device = self._network.device
            return self._answer(picture, torch.zeros(0, 1, 1, device=device), torch.zeros(0, device=device))
        with torch.inference_mode():
            embedding, places = self._asked(picture, boxes)
            parts = [self._network.decode_boxes(embedding, chunk) for chunk in torch.split(places, self._prompts)]
        logits, quality = zip(*parts, strict=True)
        return self._answer(picture, torch.cat(logits), torch.cat(quality))

    def point_masks(self, picture: npt.NDArray[np.uint8], points: Tensor) -> Iterator[BoxMasks]:
        """See `PointMasker`."""
        _require_prompts("points", points, 2)
        if not len(points):
            return
        with torch.inference_mode():
            embedding, places = self._asked(picture, points)
        for chunk in torch.split(places, self._prompts):
            with torch.inference_mode():
                logits, quality = self._network.decode_points(embedding, chunk)
            yield self._answer(picture, logits.flatten(0, 1), quality.flatten())

    def _asked(self, picture: npt.NDArray[np.uint8], prompts: Tensor) -> tuple[Any, Tensor]:
        """The embedded picture and the prompts in pixels of the square."""
        square, device = self._network.square, self._network.device
        places = square.places(prompts.to(device, torch.float32), (picture.shape[0], picture.shape[1]))
        return self._network.embed(square.pixels(picture).to(device)), places

    def _answer(self, picture: npt.NDArray[np.uint8], logits: Tensor, quality: Tensor) -> BoxMasks:
        if not (logits.isfinite().all() and quality.isfinite().all()):
            raise ModelError(
                "E216",
                f"The masker {self.name} computed values that are no numbers.",
                why="Its weights hold values that are no numbers, or overflow.",
                fix="Copy or download the weights again.",
            )
        size = (picture.shape[0], picture.shape[1])
        return BoxMasks(MaskSet(logits.float(), size, "prompts", self._network.square.frame(size)), quality.float())


def _require_prompts(name: str, prompts: Tensor, width: int) -> None:
    require(prompts.ndim == 2 and prompts.shape[1] == width, name, f"(N, {width})", tuple(prompts.shape))
    require(bool(prompts.isfinite().all()), name, "finite numbers", prompts)
