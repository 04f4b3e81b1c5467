"""Visual domains: the same classes drawn, lit and photographed in different ways, as two data sets differ."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Colours = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """What a domain does to every picture.

    Attributes:
        saturation, value: factors of all colours.
        hue_shift: of all colours, turns of the colour circle.
        warmth: red against blue, -1 .. 1.
        texture: size of all textures, 1 is that of domain A.
        contrast: of textures.
        light: strength of the light's gradient; angle: where it comes from, turns.
        vignette: darkening towards the corners, 0 .. 1.
        blur: standard deviation, pixels; noise: standard deviation on the scale 0..1.
    """

    saturation: float
    value: float
    hue_shift: float
    warmth: float
    texture: float
    contrast: float
    light: float
    angle: float
    vignette: float
    blur: float
    noise: float

    def mixed(self, other: Look, share: float) -> Look:
        """Between this look and another one."""
        values = [(1 - share) * getattr(self, f.name) + share * getattr(other, f.name) for f in fields(self)]
        return Look(*values)

    def colour(self, hue: float, saturation: float, value: float) -> Colours:
        """A colour of this domain: (3,) RGB in 0..1."""
        wanted = (hue + self.hue_shift) % 1.0, min(1.0, saturation * self.saturation), min(1.0, value * self.value)
        return np.asarray(colorsys.hsv_to_rgb(*wanted), np.float32)

    def photographed(self, drawing: Colours, random: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Light, vignette, warmth, blur and noise on a drawing (H, W, 3) in 0..1 -> uint8 RGB."""
        height, width = drawing.shape[:2]
        y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
        angle = 2 * np.pi * (self.angle + random.normal(0, 0.05))
        shade = 1 + self.light * (np.cos(angle) * x + np.sin(angle) * y) - self.vignette * (x * x + y * y) / 2
        tint = np.asarray([1 + 0.15 * self.warmth, 1.0, 1 - 0.15 * self.warmth], np.float32)
        exposure = np.float32(random.uniform(0.85, 1.15))
        lit = drawing * (shade[..., None] * exposure).astype(np.float32) * tint
        if self.blur > 0:
            lit = gaussian_filter(lit, (self.blur, self.blur, 0), truncate=2.5)
        lit = lit + random.standard_normal(lit.shape, np.float32) * np.float32(self.noise)
        return np.asarray(np.clip(lit * 255 + 0.5, 0, 255), np.uint8)


LOOKS: dict[str, Look] = {
    "a": Look(1.0, 1.0, 0.0, 0.35, 1.0, 1.0, 0.18, 0.12, 0.1, 0.4, 0.015),
    "b": Look(0.62, 0.82, 0.035, -0.5, 1.6, 0.7, 0.3, 0.6, 0.45, 1.1, 0.045),
}
