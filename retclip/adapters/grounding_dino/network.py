"""The network behind two questions: what a picture shows (once), and where a prompt is in it (any number of times)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from retclip.adapters.grounding_dino.prompts import Span
from retclip.core.errors import ModelError

# Above this ratio of sides the library would scale the short side to no pixels, or to fewer cells than it has queries.
_LONGEST_RATIO = 16

# Per level the features (B, C, h, w) and where they belong to a picture (B, h, w) bool.
_Features = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Views:
    """Pictures of one size as the network saw them.

    Attributes:
        pixels: (B, 3, h, w) scaled and normalised.
        mask: (B, h, w) 1 where a pixel belongs to the picture.
        features: what the image backbone computed.
        canvas: (height, width) in pixels of the pictures before scaling, margins included.
    """

    pixels: Tensor
    mask: Tensor
    features: _Features
    canvas: tuple[int, int]


@dataclass(frozen=True)
class Answers:
    """What each of Q queries says of one picture and one prompt.

    Attributes:
        logits: (B, Q, T) per token of the prompt, -inf where it has none.
        boxes: (B, Q, 4) centre x, centre y, width, height as shares of the canvas.
    """

    logits: Tensor
    boxes: Tensor


class _SeenOnce(nn.Module):
    """Stands where the image backbone stood and hands out features that were computed before."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.features: _Features = []

    def forward(self, pixel_values: Tensor, pixel_mask: Tensor) -> _Features:
        """`pixel_values` and `pixel_mask` are those of the features; nothing is computed."""
        return self.features


class PromptedNetwork:
    """A (MM-)Grounding-DINO network of the transformers library with its image processor and tokenizer."""

    def __init__(self, network: Any, image_processor: Any, tokenizer: Any, device: torch.device) -> None:
        self._seen = _SeenOnce(network.model.backbone.conv_encoder)
        network.model.backbone.conv_encoder = self._seen
        self._network = network.to(device)
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._device = device

    @property
    def device(self) -> torch.device:
        """Where views and answers are."""
        return self._device

    @property
    def most_tokens(self) -> int:
        """Length of the longest prompt, special tokens included."""
        return int(self._network.config.max_text_len)

    def token_spans(self, texts: list[str]) -> list[list[Span]]:
        """Per text the characters (start, end) of every token, (0, 0) for special tokens."""
        return token_spans(self._tokenizer, texts)

    @torch.inference_mode()
    def look(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Views:
        """RGB (H, W, 3) pictures of one size -> their features.

        Pictures of different sizes must not be mixed: neither the windows of the backbone nor the group norms behind
        it know padding, so that a picture would look different beside a larger one.
        """
        canvases = [_with_margin(picture) for picture in pictures]
        inputs = self._image_processor(images=canvases, input_data_format="channels_last", return_tensors="pt")
        pixels, mask = inputs["pixel_values"].to(self._device), inputs["pixel_mask"].to(self._device)
        height, width = canvases[0].shape[:2]
        return Views(pixels, mask, self._seen.backbone(pixels, mask), (height, width))

    @torch.inference_mode()
    def ask(self, views: Views, rows: Sequence[int], texts: Sequence[str]) -> Answers:
        """Ask `texts[i]` of the picture `rows[i]` of the views, all in one pass.

        Raises:
            ModelError: E213 when the network computes values that are no numbers.
        """
        index = torch.tensor(rows, device=self._device)
        self._seen.features = [(values[index], mask[index]) for values, mask in views.features]
        words = self._tokenizer(list(texts), padding=True, return_tensors="pt").to(self._device)
        output = self._network(
            pixel_values=views.pixels[index],
            pixel_mask=views.mask[index],
            input_ids=words["input_ids"],
            token_type_ids=words["token_type_ids"],
            attention_mask=words["attention_mask"],
        )
        if output.logits.isnan().any() or not output.pred_boxes.isfinite().all():
            raise ModelError(
                "E213",
                "The detector computed values that are no numbers.",
                why="Its weights hold values that are no numbers, or overflow.",
                fix="Copy or download the weights again.",
            )
        return Answers(output.logits, output.pred_boxes)


def token_spans(tokenizer: Any, texts: list[str]) -> list[list[Span]]:
    """Per text the characters (start, end) of every token, (0, 0) for special tokens."""
    spans: list[list[Span]] = tokenizer(texts, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return spans


def _with_margin(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A very narrow picture (H, W, 3) with a black margin below or to the right; others as they are."""
    height, width = picture.shape[:2]
    missing = (max(0, -(-width // _LONGEST_RATIO) - height), max(0, -(-height // _LONGEST_RATIO) - width))
    if any(missing):
        return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)))
    # Decoded pictures are read-only, which torch warns of.
    return np.require(picture, requirements=["C", "W"])
