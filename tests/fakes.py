"""Small, deterministic stand-ins for the ports: an encoder that sees mean colours, its text tower, masks, a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from retclip.core.errors import ImageError
from retclip.core.identity import FeatureSpace
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.pooling import COVERAGE_MEAN
from retclip.core.rle import mask_box
from retclip.core.vocabulary import Vocabulary
from retclip.indexer.build import build
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.indexer.report import RunReport
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind
from retclip.ports.detection import Detections
from retclip.ports.encoders import DenseFeatures
from retclip.ports.masking import BoxMasks
from retclip.ports.proposals import Proposals
from retclip.shards import Database

STRIDE = 4
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 40),
    "blue": (30, 40, 220),
    "yellow": (220, 210, 30),
    "grey": (128, 128, 128),
}
# Colour words of the text tower that no exemplar has to carry.
SYNONYMS = {"crimson": "red", "scarlet": "red", "navy": "blue", "lemon": "yellow"}


class ColourEncoder:
    """A DenseEncoder without text tower: the mean colour of every 4 x 4 cell, projected to 6 numbers."""

    def __init__(self, name: str = "fake/colour") -> None:
        self.calls = 0
        self._space = FeatureSpace(
            name, "0" * 64, 6, ("cells",), STRIDE, 1, 100_000, (0.5,) * 3, (1.0,) * 3, "", COVERAGE_MEAN
        )

    @property
    def space(self) -> FeatureSpace:
        return self._space

    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> list[DenseFeatures]:
        self.calls += len(images)
        return [self._encode(image) for image in images]

    def _encode(self, image: npt.NDArray[np.uint8]) -> DenseFeatures:
        height, width = image.shape[:2]
        values = torch.from_numpy(image.astype(np.float32) / 255 - 0.5).permute(2, 0, 1)
        padded = torch.nn.functional.pad(values, (0, -width % STRIDE, 0, -height % STRIDE))
        cells = torch.nn.functional.avg_pool2d(padded, STRIDE)
        constant = torch.full((1, *cells.shape[1:]), 0.1)
        return DenseFeatures(torch.cat([cells, constant]), (height / STRIDE, width / STRIDE))

    def embed(self, features: DenseFeatures, masks: Tensor) -> Tensor:
        return self.spread(features.pooled(masks))

    def spread(self, pooled: Tensor) -> Tensor:
        return torch.cat([pooled, pooled[:, :1] - pooled[:, 1:2], pooled[:, 1:2] - pooled[:, 2:3]], dim=1)


class ColourTexts:
    """The text tower of a ColourEncoder: a colour word lies where a picture of that colour lies."""

    logit_scale = 20.0

    def __init__(self, encoder: ColourEncoder) -> None:
        self._encoder = encoder
        self.encoded: list[tuple[str, ...]] = []

    @property
    def space(self) -> FeatureSpace:
        return self._encoder.space

    def encode_names(self, names: Sequence[str]) -> Tensor:
        self.encoded.append(tuple(names))
        return torch.nn.functional.normalize(torch.cat([self._encode(name) for name in names]), dim=1)

    def _encode(self, name: str) -> Tensor:
        colour = COLOURS.get(SYNONYMS.get(name, name))
        if colour is None:
            seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
            return torch.randn(1, self.space.dim, generator=torch.Generator().manual_seed(seed))
        patch = np.full((STRIDE, STRIDE, 3), colour, np.uint8)
        return self._encoder.spread(self._encoder.encode_images([patch])[0].values.flatten(1).T)


@dataclass(frozen=True)
class StripProposer:
    """Vertical strips of equal width, left to right; `count` 0 proposes nothing."""

    count: int

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        return [Proposals(MaskSet(strips(p.size, self.count), p.size, "strips")) for p in pictures]


def strips(size: tuple[int, int], count: int) -> Tensor:
    """(count, H, W) bool, a partition of the columns."""
    column = torch.arange(size[1]) * max(count, 1) // size[1]
    return (column[None] == torch.arange(count)[:, None])[:, None].expand(count, *size).clone()


def striped(colours: Sequence[str], height: int = 24, width: int = 48) -> npt.NDArray[np.uint8]:
    """A picture of vertical stripes in named colours."""
    index = np.arange(width) * len(colours) // width
    row = np.array([COLOURS[name] for name in colours], np.uint8)[index]
    return np.broadcast_to(row, (height, width, 3)).copy()


def picture_of(colours: Sequence[str], name: str = "stripes.png") -> Picture:
    """The same as a Picture."""
    pixels = striped(colours)
    return Picture(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), name)


class StripeCorpus:
    """Pictures of coloured stripes on disk; every stripe is a region whose label is its colour.

    A picture without colours has no annotation: asking for its regions fails.
    """

    name = "stripes"

    def __init__(self, folder: Path, pictures: Sequence[Sequence[str]], aliases: dict[str, tuple[str, ...]]) -> None:
        self._pictures = [tuple(colours) for colours in pictures]
        self._aliases = aliases
        self.paths = [folder / f"{number:04d}.png" for number in range(len(pictures))]
        self.decoded: list[str] = []

    @classmethod
    def write(
        cls, folder: Path, pictures: Sequence[Sequence[str]], aliases: dict[str, tuple[str, ...]] | None = None
    ) -> StripeCorpus:
        """Save the pictures; one corner pixel makes every file, and so every segment, different."""
        folder.mkdir(parents=True, exist_ok=True)
        corpus = cls(folder, pictures, aliases or {})
        for number, (path, colours) in enumerate(zip(corpus.paths, corpus._pictures, strict=True)):
            pixels = striped(colours or ["grey"])
            pixels[0, 0] = (number % 256, number // 256, 7)
            Image.fromarray(pixels).save(path)
        return corpus

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        return tuple(CorpusClass(f"raw {c}", c, self._aliases.get(c, ()), c != "grey") for c in COLOURS)

    def size(self) -> int:
        return len(self.paths)

    def images(self) -> Iterator[CorpusImage]:
        for path, colours in zip(self.paths, self._pictures, strict=True):
            labels = tuple(ImageLabel(f"raw {c}", "human", 0.75, True) for c in dict.fromkeys(colours))
            yield CorpusImage(self.name, path.stem, path, "train", labels, (), "CC0", "nobody")

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        self.decoded.append(image.image_id)
        colours = self._pictures[int(image.image_id)]
        if not colours:
            raise ImageError("E119", f"{image.path} has no annotation.", why="None was written.")
        regions = []
        for colour, mask in zip(colours, strips(size, len(colours)).numpy(), strict=True):
            x0, y0, x1, y1 = map(float, mask_box(mask))
            alias = self._aliases.get(colour, ())
            regions.append(
                Region(f"raw {colour}", alias, colour != "grey", mask, (x0, y0, x1, y1), False, "stripe", "stripe")
            )
        return regions

    def warnings(self) -> list[str]:
        return ["Stripes are not photographs."]


def build_stripes(
    path: Path,
    corpus: StripeCorpus,
    change: Callable[[BuildRequest], BuildRequest] = lambda request: request,
    transform: str = "none",
) -> tuple[Database, RunReport]:
    """A new database of a StripeCorpus; `change` alters the request (defaults: 2 pictures a unit, no thumbnails)."""
    encoder = ColourEncoder()
    database = Database.create(path, encoder.space, {"name": "fake"}, transform)
    request = change(BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), batch=2, thumbnails=0))
    report = build(database, request, encoder, "build")
    return Database.open(path), report


class ColourDetector:
    """A Detector of stripes: every run of equal columns goes to the asked colour that lies nearest to it."""

    name = "fake-detector@00000000"

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def detect(
        self, pictures: Sequence[npt.NDArray[np.uint8]], phrases: Sequence[Sequence[str]], threshold: float
    ) -> list[Detections]:
        self.asked.extend(tuple(names) for names in phrases)
        return [self._detect(p, names, threshold) for p, names in zip(pictures, phrases, strict=True)]

    def _detect(self, picture: npt.NDArray[np.uint8], phrases: Sequence[str], threshold: float) -> Detections:
        named = [(index, COLOURS[name]) for index, name in enumerate(phrases) if name in COLOURS]
        row = picture[picture.shape[0] // 2].astype(float)
        starts = [0, *(np.flatnonzero((row[1:] != row[:-1]).any(axis=1)) + 1).tolist(), len(row)]
        found = []
        for x0, x1 in pairwise(starts):
            scored = [(1 - float(np.abs(row[x0] - colour).mean()) / 255, index) for index, colour in named]
            score, phrase = max(scored, default=(0.0, -1))
            if score >= threshold:
                found.append((score, phrase, (x0, 0, x1, picture.shape[0])))
        found.sort(key=lambda entry: -entry[0])
        return Detections(
            torch.tensor([box for _, _, box in found], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([phrase for _, phrase, _ in found], dtype=torch.int64),
            torch.tensor([score for score, _, _ in found], dtype=torch.float32),
            ("c0ffee",) * len(found),
        )


class BoxFiller:
    """A BoxMasker whose masks are its boxes, as logits at a quarter of the picture's size."""

    name = "fake-masker@00000000"

    def masks(self, pictures: Sequence[npt.NDArray[np.uint8]], boxes: Sequence[Tensor]) -> list[BoxMasks]:
        return [self._fill(p.shape[:2], found) for p, found in zip(pictures, boxes, strict=True)]

    def _fill(self, size: tuple[int, int], boxes: Tensor) -> BoxMasks:
        rows, columns = ((torch.arange(0, side, STRIDE) + STRIDE / 2) for side in size)
        x0, y0, x1, y1 = boxes[:, :, None, None].unbind(1)
        inside = (rows[:, None] > y0) & (rows[:, None] < y1) & (columns > x0) & (columns < x1)
        logits = torch.where(inside, 4.0, -4.0)
        return BoxMasks(MaskSet(logits, size, "boxes"), torch.full((len(boxes),), 0.875))
