"""Textures of stuff, and patterns of things, in the colours of a look."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from retclip.corpora.playground.classes import HUE_SPREAD, Pattern, SceneClass, Tone
from retclip.corpora.playground.looks import Colours, Look

Field = npt.NDArray[np.float32]
Size = tuple[int, int]


def noise(size: Size, sigma: float | tuple[float, float], random: np.random.Generator) -> Field:
    """Smooth noise (H, W) with mean 0 and standard deviation 1."""
    field = gaussian_filter(random.standard_normal(size, np.float32), sigma, mode="wrap", truncate=2.5)
    return np.asarray((field - field.mean()) / (field.std() + 1e-6), np.float32)


def _shaded(base: Colours, field: Field, strength: float) -> Colours:
    """One colour, lighter and darker by a field."""
    return np.asarray(base * (1 + strength * field[..., None]), np.float32)


def _blend(low: Colours, high: Colours, share: Field) -> Colours:
    share = np.clip(share, 0, 1)[..., None]
    return np.asarray(low * (1 - share) + high * share, np.float32)


def _grid(size: Size) -> tuple[Field, Field]:
    y, x = np.indices(size, np.float32)
    return y, x


def _sky(size: Size, look: Look, random: np.random.Generator) -> Colours:
    share = np.broadcast_to(np.linspace(0, 1, size[0], dtype=np.float32)[:, None], size)
    hue = random.uniform(0.54, 0.6)
    return _blend(look.colour(hue, 0.75, 0.85), look.colour(hue, 0.3, 0.98), share + 0.05 * noise(size, 20, random))


def _clouds(size: Size, look: Look, random: np.random.Generator) -> Colours:
    field = noise(size, (9 * look.texture, 18 * look.texture), random)
    return _blend(look.colour(0.6, 0.12, 0.6), look.colour(0.6, 0.02, 0.95), 0.5 + 0.4 * look.contrast * field)


def _night(size: Size, look: Look, random: np.random.Generator) -> Colours:
    stars = (random.random(size) > 0.994).astype(np.float32)
    stars = np.clip(gaussian_filter(stars, 0.5 * look.texture) * 6, 0, 1)
    return _blend(look.colour(0.65, 0.8, 0.16), look.colour(0.15, 0.1, 1.0), stars)


def _bricks(size: Size, look: Look, random: np.random.Generator) -> Colours:
    y, x = _grid(size)
    height, width = 9 * look.texture, 20 * look.texture
    row = np.floor(y / height)
    column = np.floor(x / width + 0.5 * (row % 2))
    joint = ((y % height) < 1.5) | (((x + 0.5 * width * (row % 2)) % width) < 1.5)
    tone = np.sin(row * 12.9898 + column * 78.233) * 0.15 * look.contrast
    wall = _shaded(look.colour(random.uniform(0.01, 0.05), 0.65, 0.62), np.asarray(tone, np.float32), 1.0)
    return np.where(joint[..., None], look.colour(0.1, 0.1, 0.75), wall)


def _planks(size: Size, look: Look, random: np.random.Generator) -> Colours:
    _, x = _grid(size)
    width = 16 * look.texture
    grain = noise(size, (12 * look.texture, 0.8), random)
    board = np.sin(np.floor(x / width) * 37.7) * 0.12
    wood = _shaded(
        look.colour(random.uniform(0.07, 0.1), 0.55, 0.6),
        np.asarray(board, np.float32) + 0.14 * look.contrast * grain,
        1.0,
    )
    return np.where(((x % width) < 1.6)[..., None], look.colour(0.08, 0.6, 0.2), wood)


def _tiles(size: Size, look: Look, random: np.random.Generator) -> Colours:
    y, x = _grid(size)
    side = 14 * look.texture
    joint = ((y % side) < 1.3) | ((x % side) < 1.3)
    odd = (np.floor(y / side) + np.floor(x / side)) % 2
    hue = random.uniform(0.48, 0.53)
    wall = _blend(look.colour(hue, 0.25, 0.8), look.colour(hue, 0.4, 0.7), np.asarray(odd, np.float32))
    return np.where(joint[..., None], look.colour(0, 0, 0.95), wall)


def _metal(size: Size, look: Look, random: np.random.Generator) -> Colours:
    _, x = _grid(size)
    brushed = noise(size, (0.6, 14 * look.texture), random)
    wave = np.sin(x * 2 * np.pi / (18 * look.texture)).astype(np.float32)
    return _shaded(look.colour(0.58, 0.08, 0.62), 0.08 * brushed + 0.16 * look.contrast * wave, 1.0)


def _grass(size: Size, look: Look, random: np.random.Generator) -> Colours:
    blades = noise(size, (3.0 * look.texture, 0.7 * look.texture), random)
    return _shaded(look.colour(random.uniform(0.25, 0.32), 0.7, 0.5), blades, 0.22 * look.contrast)


def _moss(size: Size, look: Look, random: np.random.Generator) -> Colours:
    lumps = noise(size, 4.5 * look.texture, random)
    return _shaded(look.colour(random.uniform(0.22, 0.28), 0.65, 0.42), np.tanh(1.5 * lumps), 0.3 * look.contrast)


def _sand(size: Size, look: Look, random: np.random.Generator) -> Colours:
    ripples = noise(size, (1.2 * look.texture, 9 * look.texture), random)
    grains = random.standard_normal(size, np.float32)
    return _shaded(look.colour(random.uniform(0.1, 0.13), 0.42, 0.85), 0.07 * ripples + 0.06 * grains, look.contrast)


def _water(size: Size, look: Look, random: np.random.Generator) -> Colours:
    waves = noise(size, (1.6 * look.texture, 8 * look.texture), random)
    return _blend(
        look.colour(random.uniform(0.52, 0.58), 0.75, 0.45),
        look.colour(0.55, 0.3, 0.85),
        0.35 + 0.28 * look.contrast * waves,
    )


def _snow(size: Size, look: Look, random: np.random.Generator) -> Colours:
    drifts = noise(size, (8 * look.texture, 16 * look.texture), random)
    return _shaded(look.colour(0.58, 0.06, 0.95), drifts, 0.05 * look.contrast)


def _gravel(size: Size, look: Look, random: np.random.Generator) -> Colours:
    stones = np.tanh(2.5 * noise(size, 1.9 * look.texture, random))
    return _shaded(look.colour(0.08, 0.1, 0.5), stones, 0.35 * look.contrast)


def _lava(size: Size, look: Look, random: np.random.Generator) -> Colours:
    cracks = np.asarray(1 - np.abs(noise(size, 5 * look.texture, random)) * 2.2, np.float32)
    return _blend(look.colour(0.02, 0.7, 0.18), look.colour(random.uniform(0.04, 0.09), 0.95, 1.0), cracks)


def _furrows(size: Size, look: Look, random: np.random.Generator) -> Colours:
    y, x = _grid(size)
    bend = 3 * noise(size, 24, random)
    wave = np.sin((y + 0.35 * x + bend) * 2 * np.pi / (10 * look.texture)).astype(np.float32)
    return _shaded(look.colour(random.uniform(0.06, 0.08), 0.55, 0.42), wave, 0.28 * look.contrast)


SURFACES: dict[str, Callable[[Size, Look, np.random.Generator], Colours]] = {
    "sky": _sky,
    "clouds": _clouds,
    "night": _night,
    "bricks": _bricks,
    "planks": _planks,
    "tiles": _tiles,
    "metal": _metal,
    "grass": _grass,
    "moss": _moss,
    "sand": _sand,
    "water": _water,
    "snow": _snow,
    "gravel": _gravel,
    "lava": _lava,
    "furrows": _furrows,
}


# Least and greatest saturation and value.
_TONES: dict[Tone, tuple[tuple[float, float], tuple[float, float]]] = {
    "vivid": ((0.7, 0.72), (0.95, 0.95)),
    "dark": ((0.7, 0.32), (0.95, 0.48)),
    "pale": ((0.28, 0.85), (0.45, 0.98)),
    "grey": ((0.03, 0.5), (0.1, 0.75)),
}


def painted(thing: SceneClass, local: Colours, size: float, look: Look, random: np.random.Generator) -> Colours:
    """Colours of a thing.

    Args:
        thing: its class.
        local: (h, w, 2) places in the thing's own square -1 .. 1, x first.
        size: of that square in pixels.
        look: of the picture.
        random: source of the choices.

    Returns:
        (h, w, 3) RGB in 0..1.
    """
    low, high = _TONES[thing.tone]
    hue = thing.hue + random.uniform(-HUE_SPREAD, HUE_SPREAD)
    saturation, value = random.uniform(low[0], high[0]), random.uniform(low[1], high[1])
    main = look.colour(hue, saturation, value)
    second = look.colour(hue, saturation * 0.12, 0.98) if thing.second == "light" else look.colour(hue, 0.6, 0.12)
    share = _pattern(thing.pattern, local, size, look.texture, random)
    relief = (-0.12 * (local[..., 0] + local[..., 1])).astype(np.float32)
    return _shaded(np.asarray(_blend(main, second, share)), relief, 1.0)


def _pattern(kind: Pattern, local: Colours, size: float, texture: float, random: np.random.Generator) -> Field:
    """1 where the second colour shows. Larger things have more stripes, not only wider ones."""
    x, y = local[..., 0], local[..., 1]
    repeats = np.clip(size / (13 * texture), 2.5, 6) * random.uniform(0.85, 1.15)
    if kind == "striped":
        return np.asarray(np.sin(x * np.pi * repeats + random.uniform(0, 6.28)) > 0, np.float32)
    if kind == "checked":
        return np.asarray((np.sin(x * np.pi * repeats) > 0) ^ (np.sin(y * np.pi * repeats) > 0), np.float32)
    if kind == "dotted":
        near = np.cos(x * np.pi * repeats) + np.cos(y * np.pi * repeats)
        return np.asarray(near > 0.7, np.float32)
    return np.zeros(x.shape, np.float32)
