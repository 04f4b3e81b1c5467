"""Pictures with captions as training samples: everything in memory, augmentation and caption drawn anew every time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from open_clip import SimpleTokenizer
from PIL import Image
from torch import Tensor

from retclip.adapters.open_clip.prompts import PROMPTS, prompts
from retclip.core.errors import InputError
from retclip.ports.corpora import CorpusImage
from retclip.training.augmentation import Pixels
from retclip.training.order import EndlessShuffle
from retclip.training.phrases import noun_phrases

_GREY = np.asarray([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
_COMMON = 0.3


@dataclass(frozen=True)
class CropSettings:
    """Mild augmentation of whole pictures.

    Attributes:
        size: side of the square that the network sees, pixels.
        least_area: smallest share of the picture that a crop shows.
        flip: probability of a mirror image.
        light: largest change of brightness, contrast and saturation, as a share; hues are names in captions and stay.
    """

    size: int = 128
    least_area: float = 0.6
    flip: float = 0.5
    light: float = 0.2


@dataclass(frozen=True)
class CaptionBatch:
    """A batch of B pictures.

    Attributes:
        images: (B, 3, S, S) uint8 RGB.
        captions: (B, L) int64 tokens of one caption of each.
        phrases: (P, M) int64 tokens of all noun phrases in all captions of these pictures, each in a prompt.
        named: (B, P) bool, whose captions have which phrase.
        bag: (B, all phrases) float32, the same over the phrases of all pictures, 1 where named.
    """

    images: Tensor
    captions: Tensor
    phrases: Tensor
    named: Tensor
    bag: Tensor


class CaptionedPictures:
    """An endless, shuffled, augmented supply of batches: batch k is a function of (seed, k) alone.

    All pictures are decoded once and kept, 3 bytes a pixel.

    Args:
        images: of a corpus or several; those without a caption are left out.
        crop: augmentation.
        seed: of order, augmentation and choice of captions and prompts.

    Attributes:
        phrases: all noun phrases of all captions, except those that more than 30 % of the pictures share: they are
            about photos, not about what is on them.
        taught: (V,) bool, which tokens of the vocabulary occur in texts.

    Raises:
        InputError: E230 no picture has a caption.
        ImageError: E111..E114 for a picture that cannot be used.
    """

    def __init__(self, images: Iterable[CorpusImage], crop: CropSettings, seed: int = 0) -> None:
        self.crop, self.seed = crop, seed
        captioned = [image for image in images if image.captions]
        if not captioned:
            raise InputError(
                "E230",
                "No picture has a caption.",
                why="Captions are all that this training learns from.",
                fix="Put annotations/captions_<split>.json beside the pictures.",
            )
        self.captions: list[tuple[str, ...]] = [image.captions for image in captioned]
        self.pictures: list[Pixels] = [image.read().pixels for image in captioned]
        self.phrases, self._named = _phrase_table(self.captions)
        self._tokenizer = SimpleTokenizer()
        self._captions = [self._tokenizer(list(captions)) for captions in self.captions]
        self.taught = torch.zeros(self._tokenizer.vocab_size, dtype=torch.bool)
        for tokens in (*self._captions, self._tokenizer(prompts(self.phrases))):
            self.taught[tokens.flatten()] = True
        self._order = EndlessShuffle(len(captioned), seed)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, number: int, size: int) -> CaptionBatch:
        """Batch `number` of `size` pictures."""
        random = np.random.default_rng([self.seed, 1, number])
        chosen = [self._order[number * size + place] for place in range(size)]
        images = np.stack([cropped(self.pictures[index], self.crop, random) for index in chosen])
        captions = torch.stack([self._captions[i][int(random.integers(len(self._captions[i])))] for i in chosen])
        named = self._named[chosen]
        present = np.flatnonzero(named.any(0))
        texts = [PROMPTS[int(random.integers(len(PROMPTS)))].format(self.phrases[column]) for column in present]
        return CaptionBatch(
            torch.from_numpy(images).permute(0, 3, 1, 2),
            captions,
            self._tokenizer(texts),
            torch.from_numpy(named[:, present]),
            torch.from_numpy(named.astype(np.float32)),
        )

    @property
    def frequencies(self) -> Tensor:
        """(all phrases,) float32, share of the pictures whose captions have each phrase."""
        return torch.from_numpy(self._named.mean(0, dtype=np.float32))


def _phrase_table(captions: Sequence[Sequence[str]]) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Telling phrases, sorted, and (pictures, phrases) bool: which picture has which in any of its captions."""
    found = [set[str]().union(*map(noun_phrases, sentences)) for sentences in captions]
    counts = Counter(phrase for phrases in found for phrase in phrases)
    telling = sorted(phrase for phrase, count in counts.items() if count <= _COMMON * len(captions))
    column_of = {phrase: column for column, phrase in enumerate(telling)}
    named = np.zeros((len(captions), len(telling)), np.bool_)
    for row, phrases in zip(named, found, strict=True):
        row[[column_of[phrase] for phrase in phrases if phrase in column_of]] = True
    return telling, named


def cropped(pixels: Pixels, settings: CropSettings, random: np.random.Generator) -> Pixels:
    """A random part of a picture (H, W, 3), mirrored or not, in slightly different light: (S, S, 3) uint8."""
    height, width = pixels.shape[:2]
    share = np.sqrt(random.uniform(settings.least_area, 1.0, 2)) * (width, height)
    left, top = random.uniform(0, 1, 2) * ((width, height) - share)
    # As CLIP itself: bicubic with antialiasing (Pillow widens its filter).
    part = Image.fromarray(pixels).resize(
        (settings.size, settings.size),
        Image.Resampling.BICUBIC,
        box=(left, top, left + share[0], top + share[1]),
    )
    square = np.asarray(part)[:, :: -1 if random.random() < settings.flip else 1]
    return relit(square, random.uniform(1 - settings.light, 1 + settings.light, 3))


def relit(pixels: Pixels, factors: npt.ArrayLike) -> Pixels:
    """Brightness, contrast and saturation of a picture (H, W, 3) times three factors."""
    brightness, contrast, saturation = np.asarray(factors, np.float32)
    values = pixels * brightness
    grey = (values @ _GREY)[..., None]
    values = grey + saturation * (values - grey)
    middle = grey.mean()
    return np.asarray(np.clip(middle + contrast * (values - middle) + 0.5, 0, 255), np.uint8)
