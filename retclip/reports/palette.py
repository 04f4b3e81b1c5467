"""Colours of classes and instances, told apart by people with and without red-green blindness.

Colours are compared in OKLab, where equal distances look about equally different (B. Ottosson, 2020), as seen with
normal vision and with simulated protanopia and deuteranopia (G. Machado et al., 2009, severity 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt

from retclip.core.panoptic import Segment

Floats = npt.NDArray[np.float64]
Rgb = tuple[int, int, int]

PALETTE_SIZE = 256
OFF_WHITE: Rgb = (245, 245, 240)
UNLABELLED: Rgb = (128, 128, 128)

# Okabe and Ito's set without black: the first classes get the colours most readers know.
_SEEDS = np.array(
    [(0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66)]
)

_VISIONS = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)
_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def category_color(category_id: int) -> Rgb:
    """The class colour (R, G, B) in 0..255; it depends on the id alone and repeats after `PALETTE_SIZE` ids."""
    red, green, blue = _palette()[category_id % PALETTE_SIZE]
    return int(red), int(green), int(blue)


def segment_colors(segments: Iterable[Segment]) -> npt.NDArray[np.uint8]:
    """(N, 3) uint8: stuff in its class colour, things in shades of it, so that neighbours of one class differ.

    The first instance of a class has the class colour; the n-th is moved in lightness and hue along the golden
    ratio, whose multiples never come close to each other.
    """
    seen: Counter[int] = Counter()
    colors: list[Floats] = []
    for segment in segments:
        ordinal = seen[segment.category_id] if segment.is_thing else 0
        seen[segment.category_id] += 1
        colors.append(_shade(np.array(category_color(segment.category_id)), ordinal))
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)


def _shade(rgb: npt.NDArray[np.int64], ordinal: int) -> Floats:
    if ordinal == 0:
        return rgb.astype(np.float64)
    turn = (ordinal * 0.6180339887) % 1.0
    angle = 2 * np.pi * turn
    lab = _oklab(_linear(rgb / 255))
    move = np.array([0.16 * (turn - 0.5), 0.035 * np.cos(angle), 0.035 * np.sin(angle)])
    return _encoded(_from_oklab(lab + move))


@cache
def _palette() -> npt.NDArray[np.uint8]:
    """Greedy farthest-point choice: every next colour is the one whose nearest predecessor is most distant."""
    seeds = _linear(_SEEDS / 255)
    candidates = np.concatenate([seeds, _candidates()])
    seen = _oklab(np.einsum("vij,nj->vni", _VISIONS, candidates).clip(0, 1))
    gap = np.full(len(candidates), np.inf)
    chosen: list[int] = []
    for step in range(PALETTE_SIZE):
        pick = step if step < len(seeds) else int(gap.argmax())
        chosen.append(pick)
        gap = np.minimum(gap, np.linalg.norm(seen - seen[:, pick : pick + 1], axis=-1).min(axis=0))
    return _encoded(candidates[chosen]).astype(np.uint8)


def _candidates() -> Floats:
    """Linear RGB (N, 3): mid-light, moderately saturated colours on which white edges and dark text both show."""
    lightness, chroma, hue = np.meshgrid(
        np.linspace(0.5, 0.88, 9), [0.06, 0.1, 0.14, 0.18], np.arange(60) * 2 * np.pi / 60, indexing="ij"
    )
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1).reshape(-1, 3)
    linear = _from_oklab(lab)
    return linear[((linear >= 0) & (linear <= 1)).all(axis=1)]


def _oklab(linear: Floats) -> Floats:
    return np.asarray(np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T)


def _from_oklab(lab: Floats) -> Floats:
    lms = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3
    return np.asarray(lms @ np.linalg.inv(_RGB_TO_LMS).T)


def _linear(srgb: Floats) -> Floats:
    """The sRGB curve of IEC 61966-2-1, 0..1 encoded to 0..1 linear."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _encoded(linear: Floats) -> Floats:
    """Inverse of `_linear`, scaled to whole numbers in 0..255; colours outside the gamut are clipped."""
    inside = linear.clip(0, 1)
    return np.round(255 * np.where(inside <= 0.0031308, inside * 12.92, 1.055 * inside ** (1 / 2.4) - 0.055))
