"""Captions of scenes: sentences as people write them below pictures, about the whole and seldom about everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from retclip.corpora.playground.classes import SceneClass

_OPENINGS = (
    "a photo of {}",
    "This is a photo of {}",
    "There is {} in the scene",
    "{}",
    "a picture of {}",
    "a photo of {} in the scene",
)
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
_SAME_PLURAL = ("fish", "grass", "snow")


def describe_scene(segments: Sequence[SceneClass], random: np.random.Generator, count: int = 2) -> tuple[str, ...]:
    """Captions of a scene whose segments have these classes."""
    return tuple(_caption(segments, random) for _ in range(count))


def _caption(segments: Sequence[SceneClass], random: np.random.Generator) -> str:
    counts = Counter(entry.name for entry in segments)
    classes = list({entry.name: entry for entry in segments}.values())
    things = [entry for entry in classes if entry.is_thing and random.random() < 0.9]
    stuff = [entry for entry in classes if not entry.is_thing and random.random() < 0.8]
    if not things and not stuff:
        things = classes[:1]
    random.shuffle(things)
    random.shuffle(stuff)
    text = _joined([_phrase(entry, counts[entry.name], random) for entry in things])
    grounds = _joined([_name(entry, random) for entry in stuff])
    if text and grounds:
        link = ("on", "with", "and", "in front of")[int(random.integers(4))]
        text = f"{text} {link} {grounds}"
    return _OPENINGS[int(random.integers(len(_OPENINGS)))].format(text or grounds)


def _name(entry: SceneClass, random: np.random.Generator) -> str:
    """The name, now and then an alias."""
    if entry.aliases and random.random() < 0.2:
        return entry.aliases[int(random.integers(len(entry.aliases)))]
    return entry.name


def _phrase(entry: SceneClass, count: int, random: np.random.Generator) -> str:
    name = _name(entry, random)
    if count == 1:
        return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    return f"{_NUMBERS.get(count, 'many')} {plural(name)}"


def plural(name: str) -> str:
    """`fish` -> `fish`, `leaf` -> `leaves`, `box` -> `boxes`."""
    if name.endswith(_SAME_PLURAL):
        return name
    if name.endswith("leaf"):
        return name[:-1] + "ves"
    return name + ("es" if name.endswith(("s", "x", "ch")) else "s")


def _joined(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
