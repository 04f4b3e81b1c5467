"""A detector for any number of names in pictures of any size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip.adapters.grounding_dino.network import PromptedNetwork
from retclip.adapters.grounding_dino.prompts import Prompt, compose_prompts
from retclip.adapters.grounding_dino.scores import distinct_boxes, has_area, phrase_scores, picture_boxes
from retclip.core.errors import require
from retclip.ports.detection import Detections
from retclip.presets.networks import DetectorSettings

_Picture = npt.NDArray[np.uint8]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Candidates:
    """Boxes (N, 4) x0, y0, x1, y1 in pixels that one prompt found, with phrases (N,) int64 asked and scores (N,)."""

    boxes: Tensor
    phrases: Tensor
    scores: Tensor
    chunk: str


class GroundingDino:
    """Grounding DINO behind the `Detector` port.

    Names are asked in prompts of at most `chunk_tokens` tokens. Every query of the network becomes one box with the
    phrase that fits it best; what several queries or prompts found is kept once.
    """

    def __init__(self, network: PromptedNetwork, settings: DetectorSettings, weights_sha256: str) -> None:
        self._network = network
        self._settings = settings
        self._most_tokens = min(settings.chunk_tokens, network.most_tokens)
        self._weights_sha256 = weights_sha256

    @property
    def name(self) -> str:
        """Last part of the model's name and first 8 digits of the weights' digest: `grounding-dino-base@1a2b3c4d`."""
        return f"{self._settings.model.rsplit('/', 1)[-1]}@{self._weights_sha256[:8]}"

    @property
    def weights_sha256(self) -> str:
        """Digest (hex) of the tensors by the names their file gives them: another layout has another digest."""
        return self._weights_sha256

    def detect(
        self, pictures: Sequence[_Picture], phrases: Sequence[Sequence[str]], threshold: float
    ) -> list[Detections]:
        """Boxes of every picture with a score of at least `threshold`, on the network's device.

        A picture's boxes depend neither on the other pictures nor on the order of its phrases.

        Args:
            pictures: RGB (H, W, 3) uint8 of any sizes.
            phrases: per picture what to look for, in any spelling; a name that repeats another finds nothing.
            threshold: in (0, 1).

        Raises:
            ModelError: E213 for a network that computes no numbers.
        """
        require(len(phrases) == len(pictures), "phrases", f"{len(pictures)}, one list per picture", len(phrases))
        require(0 < threshold < 1, "threshold", "in (0, 1)", threshold)
        for picture in pictures:
            fits = picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8 and picture.size > 0
            require(fits, "picture", "(H, W, 3) uint8", (picture.shape, picture.dtype))
        composed = {
            asked: compose_prompts(asked, self._network.token_spans, self._most_tokens)
            for asked in {tuple(asked) for asked in phrases}
        }
        prompts = [composed[tuple(asked)] for asked in phrases]
        found: list[list[_Candidates]] = [[] for _ in pictures]
        for members in self._batches(pictures, prompts):
            batch = [pictures[index] for index in members], [prompts[index] for index in members]
            for row, candidates in self._ask_all(*batch, threshold):
                found[members[row]].append(candidates)
        return [self._selected(candidates) for candidates in found]

    def _batches(self, pictures: Sequence[_Picture], prompts: Sequence[Sequence[Prompt]]) -> Iterator[list[int]]:
        """Indices of pictures of one size that are asked something, at most `batch` at a time."""
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            if prompts[index]:
                by_size[picture.shape].append(index)
        for members in by_size.values():
            yield from _slices(members, self._settings.batch)

    def _ask_all(
        self, pictures: Sequence[_Picture], prompts: Sequence[Sequence[Prompt]], threshold: float
    ) -> Iterator[tuple[int, _Candidates]]:
        """See pictures of one size once and ask each its prompts: row of a picture, what one prompt found in it."""
        views = self._network.look(pictures)
        pairs = [(row, prompt) for row, asked in enumerate(prompts) for prompt in asked]
        for part in _slices(pairs, self._settings.batch):
            answers = self._network.ask(views, [row for row, _ in part], [prompt.text for _, prompt in part])
            for (row, prompt), logits, boxes in zip(part, answers.logits, answers.boxes, strict=True):
                pixels = picture_boxes(boxes, views.canvas, pictures[row].shape[:2])
                yield row, self._candidates(prompt, logits, pixels, threshold)

    def _candidates(self, prompt: Prompt, logits: Tensor, boxes: Tensor, threshold: float) -> _Candidates:
        """One phrase per query: the one that fits best."""
        scores, places = phrase_scores(logits, prompt.tokens, self._settings.span).max(1)
        phrases = torch.tensor(prompt.phrases, device=places.device)[places]
        kept = (scores >= threshold) & has_area(boxes)
        return _Candidates(boxes[kept], phrases[kept], scores[kept], prompt.chunk)

    def _selected(self, found: Sequence[_Candidates]) -> Detections:
        """The best distinct boxes that all prompts of a picture found."""
        if not found:
            device = self._network.device
            none = torch.zeros(0, device=device)
            return Detections(none.reshape(0, 4), none.long(), none, ())
        boxes, scores = torch.cat([part.boxes for part in found]), torch.cat([part.scores for part in found])
        phrases = torch.cat([part.phrases for part in found])
        chunks = tuple(part.chunk for part in found for _ in range(len(part.scores)))
        rows = distinct_boxes(boxes, scores, phrases, self._settings.nms_iou)
        return Detections(boxes, phrases, scores, chunks).select(rows[: self._settings.most_boxes])


def _slices(items: Sequence[_Item], size: int) -> Iterator[list[_Item]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
