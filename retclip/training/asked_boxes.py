"""Annotated pictures as samples for a detector: a cropped picture, a prompt that names classes, and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import find_objects
from torch import Tensor
from torchvision.ops import box_convert
from torchvision.transforms.v2.functional import resize

from retclip.adapters.grounding_dino.prompts import Prompt, TokenSpans, compose_prompts
from retclip.core.errors import InputError
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.training.augmentation import Pixels
from retclip.training.coco_panoptic import PanopticPicture, read_pair
from retclip.training.detection import BoxTargets
from retclip.training.order import EndlessShuffle


@dataclass(frozen=True)
class ViewSettings:
    """What the network sees of a picture.

    Attributes:
        height, width: of the view in pixels.
        smallest: the view is a window of this share to all of the largest window of its shape.
        flip: probability of a mirror image.
        least_area: in pixels of the picture; segments of which less is visible are not asked for.
        ask_all: probability that all classes are asked; else some of the absent ones are left out.
    """

    height: int
    width: int
    smallest: float = 0.8
    flip: float = 0.5
    least_area: int = 60
    ask_all: float = 0.5


class AskedPicture(NamedTuple):
    """image (3, h, w) uint8 RGB, the prompt, and what is to be found."""

    image: Tensor
    prompt: str
    targets: BoxTargets


class _Loaded(NamedTuple):
    """pixels (H, W, 3) RGB; places (H, W) 0 for nothing, k for segment k - 1, whose class is columns[k - 1]."""

    pixels: Pixels
    places: npt.NDArray[np.uint16]
    columns: list[int]


class AskedBoxes:
    """An endless, shuffled, augmented stream of asked pictures, held in memory; item k depends on (seed, k) alone.

    Every segment is a thing to find, stuff too: its box is that of its visible pixels.

    Args:
        pictures: annotated photos.
        vocabulary: of their columns; a class is asked by any of its names.
        token_spans: the network's own tokenizer.
        most_tokens: length of the longest prompt, special tokens included.
        settings: views and prompts.
        seed: of all choices.

    Raises:
        InputError: E171..E174 bad annotations, E176 classes that one prompt cannot hold or tell apart.
    """

    def __init__(
        self,
        pictures: Sequence[PanopticPicture],
        vocabulary: Vocabulary,
        token_spans: TokenSpans,
        most_tokens: int,
        settings: ViewSettings,
        seed: int,
    ) -> None:
        self._names = _own_names(vocabulary)
        self._token_spans, self._most_tokens = token_spans, most_tokens
        self._settings, self._seed = settings, seed
        longest = [max(names, key=len) for names in self._names]
        prompts = compose_prompts(longest, token_spans, most_tokens)
        if len(prompts) != 1 or len(prompts[0].phrases) != len(longest):
            raise InputError(
                "E176",
                f"The classes of '{vocabulary.name}' do not make one prompt.",
                why=f"A prompt holds {most_tokens} tokens, and every class needs a name of its own.",
                fix="Leave classes out, shorten their names, or raise max_text_len of the network.",
            )
        self._loaded = [_load(picture) for picture in pictures]
        self._order = EndlessShuffle(len(pictures), seed)

    def __getitem__(self, index: int) -> AskedPicture:
        random = np.random.default_rng([self._seed, 1, index])
        picture = self._loaded[self._order[index]]
        pixels, places = _window(picture, self._settings, random)
        boxes, segments = _visible_boxes(places, self._settings.least_area)
        columns = [picture.columns[segment] for segment in segments]
        prompt, place_of = self._ask(set(columns), random)
        tokens = torch.zeros(len(columns), self._most_tokens, dtype=torch.bool)
        for row, column in enumerate(columns):
            tokens[row, list(prompt.tokens[place_of[column]])] = True
        view = resize(torch.from_numpy(pixels).permute(2, 0, 1), [self._settings.height, self._settings.width])
        return AskedPicture(view, prompt.text, BoxTargets(boxes, tokens))

    def _ask(self, present: set[int], random: np.random.Generator) -> tuple[Prompt, dict[int, int]]:
        """A prompt for the present classes and some or all of the absent ones; class -> its place in the prompt.

        The network reads every phrase by itself, so that their order, which is the alphabet's, teaches nothing.
        """
        share = 1.0 if random.random() < self._settings.ask_all else random.random()
        drawn = set(np.flatnonzero(random.random(len(self._names)) < share).tolist())
        asked = sorted(drawn | present) or list(range(len(self._names)))
        names = [self._names[column][random.integers(len(self._names[column]))] for column in asked]
        (prompt,) = compose_prompts(names, self._token_spans, self._most_tokens)
        return prompt, {asked[index]: place for place, index in enumerate(prompt.phrases)}


def _own_names(vocabulary: Vocabulary) -> list[tuple[str, ...]]:
    """Per class the names that no other class has, or else its first."""
    shared = vocabulary.shared_names()
    own = (tuple(n for n in category.names if normalise_name(n) not in shared) for category in vocabulary)
    return [names or (category.name,) for names, category in zip(own, vocabulary, strict=True)]


def _load(picture: PanopticPicture) -> _Loaded:
    pixels, ids = read_pair(picture)
    places = np.zeros(ids.shape, np.uint16)
    for number, segment in enumerate(picture.columns, 1):
        places[ids == segment] = number
    return _Loaded(pixels, places, list(picture.columns.values()))


def _window(
    picture: _Loaded, settings: ViewSettings, random: np.random.Generator
) -> tuple[Pixels, npt.NDArray[np.uint16]]:
    """A random window of the view's shape, perhaps mirrored."""
    height, width = picture.places.shape
    unit = min(height / settings.height, width / settings.width) * random.uniform(settings.smallest, 1)
    rows, columns = max(1, round(unit * settings.height)), max(1, round(unit * settings.width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    window = np.s_[top : top + rows, left : left + columns]
    pixels, places = picture.pixels[window], picture.places[window]
    if random.random() < settings.flip:
        pixels, places = pixels[:, ::-1], places[:, ::-1]
    # Decoded pictures are read-only, which torch warns of.
    return np.require(pixels, requirements=["C", "W"]), places


def _visible_boxes(places: npt.NDArray[np.uint16], least_area: int) -> tuple[Tensor, list[int]]:
    """Boxes (n, 4) centre x, centre y, width, height as shares, and segments, of what (H, W) places show enough of."""
    height, width = places.shape
    areas = np.bincount(places.ravel())
    boxes, segments = [], []
    for segment, window in enumerate(find_objects(places)):
        if window is None or areas[segment + 1] < least_area:
            continue
        (top, bottom), (left, right) = ((axis.start, axis.stop) for axis in window)
        boxes.append([left / width, top / height, right / width, bottom / height])
        segments.append(segment)
    return box_convert(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), "xyxy", "cxcywh"), segments
