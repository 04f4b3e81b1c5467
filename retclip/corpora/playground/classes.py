"""The classes of the playground: what each looks like, and whether training may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pattern = Literal["plain", "striped", "dotted", "checked"]
Tone = Literal["vivid", "dark", "pale", "grey"]
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
        hue: of a thing, the middle of its hues on the colour circle 0..1; a picture has it within `HUE_SPREAD`.
        tone: of a thing, how saturated and light it is.
        second: the other colour of a pattern, white or black of the same hue.
        surface: of stuff, a name in `surfaces`.
        place: of stuff, above or below the horizon.
    """

    name: str
    aliases: tuple[str, ...]
    is_thing: bool
    seen: bool
    outline: str = ""
    pattern: Pattern = "plain"
    hue: float = 0.0
    tone: Tone = "vivid"
    second: Literal["light", "dark"] = "light"
    surface: str = ""
    place: Place = "below"

    @property
    def names(self) -> tuple[str, ...]:
        """Name and aliases."""
        return (self.name, *self.aliases)


HUE_SPREAD = 0.03
RED, RUST, ORANGE, GOLD, YELLOW, LIME, GREEN = 0.0, 0.03, 0.07, 0.13, 0.16, 0.22, 0.33
TEAL, CYAN, AZURE, BLUE, VIOLET, PURPLE, MAGENTA, PINK = 0.46, 0.51, 0.56, 0.62, 0.7, 0.77, 0.84, 0.92


def _thing(
    name: str,
    outline: str,
    hue: float,
    *aliases: str,
    pattern: Pattern = "plain",
    tone: Tone = "vivid",
    second: Literal["light", "dark"] = "light",
    seen: bool = True,
) -> SceneClass:
    return SceneClass(name, aliases, True, seen, outline, pattern, hue, tone, second)


def _stuff(name: str, surface: str, place: Place, *aliases: str, seen: bool = True) -> SceneClass:
    return SceneClass(name, aliases, False, seen, surface=surface, place=place)


# Classes share outlines, patterns and hues with others, so none of the three alone tells a class.
CLASSES: tuple[SceneClass, ...] = (
    _thing("red star", "star", RED),
    _thing("blue star", "star", BLUE),
    _thing("striped fish", "fish", ORANGE, pattern="striped"),
    _thing("ring", "ring", MAGENTA, "hoop"),
    _thing("checked box", "square", BLUE, "chequered box", pattern="checked", second="dark"),
    _thing("dotted ball", "disc", GREEN, "spotted ball", pattern="dotted"),
    _thing("heart", "heart", PINK),
    _thing("arrow", "arrow", ORANGE),
    _thing("gear", "gear", BLUE, "cog", tone="grey"),
    _thing("striped hexagon", "hexagon", PURPLE, pattern="striped"),
    _thing("green leaf", "leaf", LIME),
    _thing("flower", "flower", PURPLE, "blossom"),
    _thing("lightning bolt", "bolt", YELLOW, "lightning"),
    _thing("bottle", "bottle", TEAL),
    _thing("house", "house", RUST, "hut", pattern="checked", second="dark"),
    _thing("pine tree", "pine", GREEN, "fir", tone="dark"),
    _thing("boat", "boat", AZURE, "sailing boat", pattern="striped"),
    _thing("moon", "crescent", GOLD, "crescent", tone="pale"),
    _thing("cross", "cross", CYAN),
    _thing("hourglass", "hourglass", VIOLET),
    _thing("green star", "star", GREEN, seen=False),
    _thing("spotted fish", "fish", BLUE, "dotted fish", pattern="dotted", seen=False),
    _thing("striped ball", "disc", RED, pattern="striped", seen=False),
    _thing("brown box", "square", ORANGE, "crate", tone="dark", seen=False),
    _thing("mushroom", "mushroom", RED, "toadstool", pattern="dotted", seen=False),
    _thing("drop", "drop", AZURE, "droplet", tone="pale", seen=False),
    _thing("triangle", "triangle", MAGENTA, tone="dark", seen=False),
    _thing("autumn leaf", "leaf", RUST, seen=False),
    _thing("key", "key", GOLD, tone="dark", seen=False),
    _thing("kite", "kite", YELLOW, pattern="checked", second="dark", seen=False),
    _thing("crown", "crown", GOLD, seen=False),
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
