"""The classes of the playground: what each looks like, and whether training may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pattern = Literal["plain", "striped", "dotted", "checked"]
Place = Literal["above", "below"]


@dataclass(frozen=True)
class SceneClass:
    """One class.

    Attributes:
        name, aliases: for captions and class lists.
        is_thing: countable object or stuff.
        seen: whether annotations of it may train a segmentation head; databases and captions know all classes.
        outline: of a thing, a name in `outlines`; empty for stuff.
        pattern: of a thing.
        hues: of a thing, a range on the colour circle 0..1; (0, 1) is any colour.
        grey: a thing without colour.
        surface: of stuff, a name in `surfaces`.
        place: of stuff, above or below the horizon.
    """

    name: str
    aliases: tuple[str, ...]
    is_thing: bool
    seen: bool
    outline: str = ""
    pattern: Pattern = "plain"
    hues: tuple[float, float] = (0.0, 1.0)
    grey: bool = False
    surface: str = ""
    place: Place = "below"

    @property
    def names(self) -> tuple[str, ...]:
        """Name and aliases."""
        return (self.name, *self.aliases)


RED, ORANGE, YELLOW, GREEN, BLUE = (-0.03, 0.03), (0.05, 0.1), (0.13, 0.17), (0.28, 0.4), (0.56, 0.66)
ANY = (0.0, 1.0)


def _thing(
    name: str,
    outline: str,
    pattern: Pattern = "plain",
    hues: tuple[float, float] = ANY,
    *aliases: str,
    seen: bool = True,
    grey: bool = False,
) -> SceneClass:
    return SceneClass(name, aliases, True, seen, outline, pattern, hues, grey)


def _stuff(name: str, surface: str, place: Place, *aliases: str, seen: bool = True) -> SceneClass:
    return SceneClass(name, aliases, False, seen, surface=surface, place=place)


# Several classes share an outline and differ in pattern or colour, so neither alone tells a class.
CLASSES: tuple[SceneClass, ...] = (
    _thing("red star", "star", "plain", RED),
    _thing("blue star", "star", "plain", BLUE),
    _thing("striped fish", "fish", "striped"),
    _thing("ring", "ring", "plain", ANY, "hoop"),
    _thing("checked box", "square", "checked", ANY, "chequered box"),
    _thing("dotted ball", "disc", "dotted", ANY, "spotted ball"),
    _thing("heart", "heart", "plain", RED),
    _thing("arrow", "arrow"),
    _thing("gear", "gear", "plain", ANY, "cog", grey=True),
    _thing("striped hexagon", "hexagon", "striped"),
    _thing("green leaf", "leaf", "plain", GREEN),
    _thing("flower", "flower", "plain", ANY, "blossom"),
    _thing("lightning bolt", "bolt", "plain", YELLOW, "lightning"),
    _thing("bottle", "bottle", "plain", GREEN),
    _thing("house", "house", "checked", ANY, "hut"),
    _thing("pine tree", "pine", "plain", GREEN, "fir"),
    _thing("boat", "boat", "striped", ANY, "sailing boat"),
    _thing("moon", "crescent", "plain", YELLOW, "crescent"),
    _thing("cross", "cross"),
    _thing("hourglass", "hourglass"),
    _thing("green star", "star", "plain", GREEN, seen=False),
    _thing("spotted fish", "fish", "dotted", ANY, "dotted fish", seen=False),
    _thing("striped ball", "disc", "striped", seen=False),
    _thing("plain box", "square", "plain", ANY, "cube", seen=False),
    _thing("mushroom", "mushroom", "dotted", RED, "toadstool", seen=False),
    _thing("drop", "drop", "plain", BLUE, "droplet", seen=False),
    _thing("triangle", "triangle", seen=False),
    _thing("autumn leaf", "leaf", "plain", ORANGE, seen=False),
    _thing("key", "key", "plain", YELLOW, seen=False),
    _thing("kite", "kite", "checked", seen=False),
    _thing("crown", "crown", "plain", YELLOW, seen=False),
    _stuff("blue sky", "sky", "above", "sky"),
    _stuff("night sky", "night", "above", "starry sky"),
    _stuff("brick wall", "bricks", "above", "bricks"),
    _stuff("wooden fence", "planks", "above", "planks"),
    _stuff("tiled wall", "tiles", "above", "tiles"),
    _stuff("grass", "grass", "below", "lawn"),
    _stuff("sand", "sand", "below", "beach"),
    _stuff("water", "water", "below", "sea"),
    _stuff("snow", "snow", "below"),
    _stuff("gravel", "gravel", "below", "pebbles"),
    _stuff("clouds", "clouds", "above", "cloudy sky", seen=False),
    _stuff("metal wall", "metal", "above", "metal sheet", seen=False),
    _stuff("lava", "lava", "below", seen=False),
    _stuff("ploughed field", "furrows", "below", "field", seen=False),
    _stuff("moss", "moss", "below", seen=False),
)
