"""Text in pictures: one font size, label tiles with a dark rounded backing and a badge."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from PIL import Image, ImageChops, ImageDraw, ImageFont

from retclip.reports.palette import Rgb

INK: Rgb = (250, 250, 248)
BACKING = (18, 20, 26, 205)

# Badge colours are dark enough for white letters and differ in lightness, not only in hue.
BADGE_COLORS: dict[str, Rgb] = {"R": (0, 98, 155), "C": (176, 72, 0), "V": (0, 120, 86)}

# Rounded shapes are drawn this many times larger and reduced, because Pillow draws them without antialiasing.
_SUPERSAMPLING = 4


class Lettering:
    """Measures and draws text of one size.

    Args:
        size: font size in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.font = ImageFont.load_default(size)
        ascent, descent = self.font.getmetrics() if isinstance(self.font, ImageFont.FreeTypeFont) else (size, 0)
        self.line = ascent + descent
        self._known: dict[str, str] = {}
        self._unknown = self._shape("\uffff")
        self.padding = max(3, round(size * 0.36))

    def width(self, text: str) -> int:
        """Advance width of a line in pixels."""
        return round(self.font.getlength(self.legible(text)))

    def write(
        self, draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, fill: Rgb, anchor: str = "lm"
    ) -> None:
        """Draw a line; `anchor` says which point of it stands at x, y, in Pillow's letters."""
        draw.text(at, self.legible(text), fill=fill, font=self.font, anchor=anchor)

    def legible(self, text: str) -> str:
        """The text in characters the font has: letters lose accents it cannot draw, the rest becomes `?`.

        Pillow's built-in font is used because it is the same on every machine; it covers little more than ASCII.
        """
        return "".join(self._drawable(character) for character in text)

    def _drawable(self, character: str) -> str:
        if character not in self._known:
            base = unicodedata.normalize("NFKD", character)[0]
            self._known[character] = next((c for c in (character, base) if self._shape(c) != self._unknown), "?")
        return self._known[character]

    def _shape(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self.font.getmask(character)
        return mask.size, bytes(mask)

    def tile_size(self, text: str, badge: str) -> tuple[int, int]:
        """(width, height) in pixels of the tile that `tile` draws."""
        height = self.line + 2 * (self.padding // 2)
        return self.width(text) + 2 * self.padding + self._badge_width(badge), height

    def tile(self, text: str, badge: str) -> Image.Image:
        """RGBA label: text on a dark rounded backing, the badge letter on its own colour at the right end."""
        width, height = self.tile_size(text, badge)
        badge_width = self._badge_width(badge)
        tile = _backing(width, height, badge_width, BADGE_COLORS[badge], max(3, self.size // 4)).copy()
        draw = ImageDraw.Draw(tile)
        self.write(draw, (self.padding, height / 2), text, INK)
        self.write(draw, (width - badge_width / 2, height / 2), badge, INK, anchor="mm")
        return tile

    def _badge_width(self, badge: str) -> int:
        return self.width(badge) + round(self.size * 0.7)


@lru_cache(maxsize=256)
def _backing(width: int, height: int, badge_width: int, badge: Rgb, radius: int) -> Image.Image:
    scale = _SUPERSAMPLING
    shape = Image.new("L", (width * scale, height * scale), 0)
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, width * scale - 1, height * scale - 1), radius * scale, fill=255)
    alpha = shape.resize((width, height), Image.Resampling.BOX)
    tile = Image.new("RGB", (width, height), BACKING[:3])
    tile.paste(badge, (width - badge_width, 0, width, height))
    strength = Image.new("L", (width, height), BACKING[3])
    strength.paste(235, (width - badge_width, 0, width, height))
    tile.putalpha(ImageChops.multiply(strength, alpha))
    return tile
