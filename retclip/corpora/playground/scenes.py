"""Scenes: stuff in bands, things on it, one before the other; every pixel belongs to exactly one segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from retclip.corpora.playground.captions import describe_scene
from retclip.corpora.playground.classes import CLASSES
from retclip.corpora.playground.looks import LOOKS, Colours, Look
from retclip.corpora.playground.outlines import OUTLINES, Outline
from retclip.corpora.playground.surfaces import SURFACES, painted

Domain = Literal["a", "b", "web"]
Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

DOMAINS: tuple[Domain, ...] = ("a", "b", "web")
LEAST_AREA = 60  # pixels of a segment that still shows its class
LEAST_VISIBLE = 0.4  # share of a thing that others leave to be seen
RARE = 0.4  # how often the web shows an unseen class, compared with a seen one


@dataclass(frozen=True)
class SceneSettings:
    """A kind of scenes.

    Attributes:
        domain: `a`, `b`, or `web`, whose pictures look like either or between, show fewer and larger things, and are
            those that captions belong to.
        height, width: pixels.
        things: fewest and most of them in a scene.
        sizes: shortest and longest square around a thing, pixels.
        only_seen: leave unseen classes out.
        seed: of the whole kind.
    """

    domain: Domain
    height: int
    width: int
    things: tuple[int, int]
    sizes: tuple[float, float]
    only_seen: bool = False
    seed: int = 0

    @classmethod
    def of(cls, domain: Domain, *, only_seen: bool = False, seed: int = 0) -> SceneSettings:
        """The playground's own settings of a domain."""
        if domain == "web":
            return cls(domain, 160, 160, (1, 3), (40, 120), only_seen, seed)
        return cls(domain, 224, 288, (2, 7), (24, 110), only_seen, seed)


@dataclass(frozen=True)
class Scene:
    """One picture with its truth.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        ids: (H, W) int32, segment k + 1 wherever `classes[k]` is visible; no pixel is 0.
        classes: per segment its column in `CLASSES`.
        captions: sentences about the whole picture; they may leave something out, as people do.
    """

    pixels: npt.NDArray[np.uint8]
    ids: Ids
    classes: tuple[int, ...]
    captions: tuple[str, ...]


def compose(settings: SceneSettings, number: int) -> Scene:
    """Scene `number` of a kind: a function of settings and number alone."""
    words = [settings.seed, DOMAINS.index(settings.domain), int(settings.only_seen), number]
    random = np.random.default_rng(words)
    look = _look(settings.domain, random)
    canvas = _Canvas(settings, look, random)
    canvas.paint_stuff()
    for _ in range(int(random.integers(settings.things[0], settings.things[1] + 1))):
        canvas.add_thing()
    return canvas.finished()


def _look(domain: Domain, random: np.random.Generator) -> Look:
    if domain != "web":
        return LOOKS[domain]
    return LOOKS["a"].mixed(LOOKS["b"], float(random.beta(0.4, 0.4)))


class _Canvas:
    """A scene while it is drawn."""

    def __init__(self, settings: SceneSettings, look: Look, random: np.random.Generator) -> None:
        self.settings, self.look, self.random = settings, look, random
        self.size = (settings.height, settings.width)
        self.drawing: Colours = np.zeros((*self.size, 3), np.float32)
        self.ids: Ids = np.zeros(self.size, np.int32)
        self.classes: list[int] = []
        self.areas: list[int] = []

    def _drawn_class(self, candidates: Sequence[int]) -> int:
        """One of these columns of CLASSES; on the web unseen classes are rare."""
        allowed = [c for c in candidates if CLASSES[c].seen or not self.settings.only_seen]
        rare = RARE if self.settings.domain == "web" else 1.0
        weights = np.asarray([1.0 if CLASSES[c].seen else rare for c in allowed])
        return int(self.random.choice(allowed, p=weights / weights.sum()))

    def paint_stuff(self) -> None:
        """A band above the horizon, one or two below, and now and then a patch of another ground."""
        height, width = self.size
        y, x = np.indices(self.size, np.float32)
        horizon = self._border(x, self.random.uniform(0.25, 0.6) * height)
        self._fill(self._stuff("above"), np.ones(self.size, np.bool_))
        self._fill(self._stuff("below"), y > horizon)
        if self.random.random() < 0.5:
            self._fill(self._stuff("below"), y > self._border(x, self.random.uniform(0.65, 0.9) * height))
        if self.random.random() < 0.25:
            middle = self.random.uniform(0.2, 0.8) * width, self.random.uniform(0.65, 0.85) * height
            far = ((x - middle[0]) / (0.25 * width)) ** 2 + ((y - middle[1]) / (0.14 * height)) ** 2
            self._fill(self._stuff("below"), (far < 1) & (y > horizon))

    def _border(self, x: npt.NDArray[np.float32], level: float) -> npt.NDArray[np.float32]:
        width = self.size[1]
        waves = np.sin(x * self.random.uniform(0.5, 2.5) * 2 * np.pi / width + self.random.uniform(0, 6.28))
        slope = self.random.uniform(-0.15, 0.15) * (x - width / 2)
        return np.asarray(level + slope + self.random.uniform(0, 0.04) * self.size[0] * waves, np.float32)

    def _stuff(self, place: str) -> int:
        fits = [c for c, entry in enumerate(CLASSES) if entry.place == place and not entry.is_thing]
        return self._drawn_class([c for c in fits if c not in self.classes])

    def _fill(self, column: int, where: Mask) -> None:
        colours = SURFACES[CLASSES[column].surface](self.size, self.look, self.random)
        self._lay(column, where, where.astype(np.float32), colours, np.s_[:, :])

    def add_thing(self) -> None:
        """Draw one thing somewhere, unless it would hide too much of what is there already."""
        column = self._drawn_class([c for c, entry in enumerate(CLASSES) if entry.is_thing])
        low, high = np.log(self.settings.sizes)
        size = float(np.exp(self.random.uniform(low, high)))
        middle = self.random.uniform(0, self.size[1]), self.random.uniform(0.15, 1.0) * self.size[0]
        turn = _Turn.drawn(OUTLINES[CLASSES[column].outline], size, self.random)
        window, alpha = turn.silhouette(OUTLINES[CLASSES[column].outline], middle, self.size)
        solid = alpha >= 0.5
        if np.count_nonzero(solid) < LEAST_AREA or not self._leaves_others_visible(self.ids[window][solid]):
            return
        local = turn.local(window, middle)
        colours = painted(CLASSES[column], local, size, self.look, self.random)
        self._lay(column, solid, alpha, colours, window)

    def _leaves_others_visible(self, hidden: Ids) -> bool:
        lost = np.bincount(hidden, minlength=len(self.classes) + 1)[1:]
        now = np.bincount(self.ids.ravel(), minlength=len(self.classes) + 1)[1:]
        for column, area, left in zip(self.classes, self.areas, now - lost, strict=True):
            if left < LEAST_AREA or (CLASSES[column].is_thing and left < LEAST_VISIBLE * area):
                return False
        return True

    def _lay(
        self, column: int, solid: Mask, alpha: npt.NDArray[np.float32], colours: Colours, window: tuple[slice, slice]
    ) -> None:
        self.classes.append(column)
        self.areas.append(int(np.count_nonzero(solid)))
        self.ids[window][solid] = len(self.classes)
        below = self.drawing[window]
        self.drawing[window] = below + alpha[..., None] * (colours - below)

    def finished(self) -> Scene:
        """The photograph of the drawing, segments numbered without gaps."""
        present = np.unique(self.ids[self.ids > 0])
        numbers = np.zeros(len(self.classes) + 1, np.int32)
        numbers[present] = np.arange(1, len(present) + 1)
        ids = numbers[self.ids]
        classes = tuple(self.classes[number - 1] for number in present.tolist())
        pixels = self.look.photographed(self.drawing, self.random)
        return Scene(pixels, ids, classes, describe_scene([CLASSES[c] for c in classes], self.random))


@dataclass(frozen=True)
class _Turn:
    """How an outline lies in a picture: half its size in pixels along its own axes, and its rotation in radians."""

    half: tuple[float, float]
    angle: float

    @classmethod
    def drawn(cls, outline: Outline, size: float, random: np.random.Generator) -> _Turn:
        angle = random.normal(0, 0.12 if outline.upright else 0.45)
        stretch = random.uniform(0.8, 1.25) ** 0.5
        mirror = -1.0 if random.random() < 0.5 else 1.0
        return cls((mirror * size / 2 * stretch, size / 2 / stretch), float(angle))

    def _matrix(self) -> npt.NDArray[np.float64]:
        """Own coordinates -> pixels, as rows (x, y)."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.asarray([[cos * self.half[0], sin * self.half[0]], [-sin * self.half[1], cos * self.half[1]]])

    def silhouette(
        self, outline: Outline, middle: tuple[float, float], size: tuple[int, int]
    ) -> tuple[tuple[slice, slice], npt.NDArray[np.float32]]:
        """The window of the picture that the thing touches, and how much of each pixel in it is covered, 0 .. 1."""
        fine = 3
        places = [part @ self._matrix() + middle for part in (*outline.parts, *outline.holes)]
        corners = np.concatenate(places)
        x0, y0 = np.clip(np.floor(corners.min(0)).astype(int), 0, (size[1] - 1, size[0] - 1))
        x1, y1 = np.clip(np.ceil(corners.max(0)).astype(int), (x0 + 1, y0 + 1), (size[1], size[0]))
        canvas = Image.new("L", ((x1 - x0) * fine, (y1 - y0) * fine))
        pen = ImageDraw.Draw(canvas)
        for index, place in enumerate(places):
            pen.polygon(((place - (x0, y0)) * fine).ravel().tolist(), fill=255 * (index < len(outline.parts)))
        cover = np.asarray(canvas, np.float32).reshape(y1 - y0, fine, x1 - x0, fine).mean((1, 3)) / 255
        return (slice(y0, y1), slice(x0, x1)), np.asarray(cover, np.float32)

    def local(self, window: tuple[slice, slice], middle: tuple[float, float]) -> Colours:
        """Places of the window's pixels in the thing's own square: (h, w, 2), x first."""
        y, x = np.mgrid[window]
        places = np.stack([x + 0.5 - middle[0], y + 0.5 - middle[1]], -1) @ np.linalg.inv(self._matrix())
        return np.asarray(places, np.float32)
