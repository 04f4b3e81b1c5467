"""Outlines of things: polygons in the square -1 .. 1, y downwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """parts: filled polygons (N, 2); holes: polygons cut out of them; upright: never turned far, as a house is not."""

    parts: tuple[Points, ...]
    holes: tuple[Points, ...] = ()
    upright: bool = False


def _points(*pairs: tuple[float, float]) -> Points:
    return np.asarray(pairs, np.float64)


def _circle(radius: float = 1.0, x: float = 0.0, y: float = 0.0, corners: int = 40) -> Points:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.sin(angles), y - radius * np.cos(angles)], 1)


def _polar(radius: Callable[[Points], Points], corners: int = 80) -> Points:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    lengths = radius(angles)
    return np.stack([lengths * np.sin(angles), -lengths * np.cos(angles)], 1)


def _star(tips: int, inner: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, 2 * tips, endpoint=False)
    lengths = np.where(np.arange(2 * tips) % 2, inner, 1.0)
    return np.stack([lengths * np.sin(angles), -lengths * np.cos(angles)], 1)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 17, -y / 17], 1)


def _leaf() -> Points:
    y = np.linspace(-1, 1, 30)
    width = 0.55 * np.cos(y * np.pi / 2) ** 0.7
    return np.concatenate([np.stack([width, y], 1), np.stack([-width, y], 1)[::-1]])


def _drop() -> Points:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([0.7 * np.sin(t) * np.sin(t / 2) ** 1.5, 1.0 - 2.0 * (1 + np.cos(t)) / 2], 1)


def _crescent() -> Points:
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 40)
    inner = np.linspace(1.75 * np.pi, 0.25 * np.pi, 40)
    far = np.stack([np.cos(outer), np.sin(outer)], 1)
    near = np.stack([0.45 + 0.76 * np.cos(inner), 0.93 * np.sin(inner)], 1)
    return np.asarray(np.concatenate([far, near]) + np.asarray([0.15, 0.0]))


def _hexagon() -> Points:
    return _circle(corners=6)


OUTLINES: dict[str, Outline] = {
    "disc": Outline((_circle(),)),
    "ring": Outline((_circle(),), (_circle(0.55),)),
    "square": Outline((_points((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),)),
    "triangle": Outline((_points((0, -1), (0.95, 0.8), (-0.95, 0.8)),)),
    "star": Outline((_star(5, 0.42),)),
    "cross": Outline(
        (_points((-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)), _points((-0.3, -1), (0.3, -1), (0.3, 1), (-0.3, 1)))
    ),
    "crescent": Outline((_crescent(),)),
    "heart": Outline((_heart(),)),
    "arrow": Outline((_points((-1, -0.25), (0.1, -0.25), (0.1, -0.75), (1, 0), (0.1, 0.75), (0.1, 0.25), (-1, 0.25)),)),
    "gear": Outline((_polar(lambda a: np.where(np.sin(9 * a) > 0, 1.0, 0.74), 180),), (_circle(0.3),)),
    "hexagon": Outline((_hexagon(),)),
    "leaf": Outline((_leaf(),)),
    "drop": Outline((_drop(),), upright=True),
    "flower": Outline((_polar(lambda a: 0.68 + 0.32 * np.cos(6 * a)),), (_circle(0.2),)),
    "bolt": Outline(
        (_points((0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.6, -0.25), (0.05, -0.25), (0.5, -1)),)
    ),
    "bottle": Outline(
        (
            _points(
                (-0.18, -1), (0.18, -1), (0.18, -0.5), (0.42, -0.2), (0.42, 1), (-0.42, 1), (-0.42, -0.2), (-0.18, -0.5)
            ),
        ),
        upright=True,
    ),
    "house": Outline(
        (_points((0, -1), (1, -0.15), (0.8, -0.15), (0.8, 0.9), (-0.8, 0.9), (-0.8, -0.15), (-1, -0.15)),), upright=True
    ),
    "pine": Outline(
        (
            _points((0, -1), (0.5, -0.3), (-0.5, -0.3)),
            _points((0, -0.6), (0.65, 0.2), (-0.65, 0.2)),
            _points((0, -0.1), (0.8, 0.7), (-0.8, 0.7)),
            _points((-0.13, 0.7), (0.13, 0.7), (0.13, 1), (-0.13, 1)),
        ),
        upright=True,
    ),
    "boat": Outline(
        (
            _points((-1, 0.4), (1, 0.4), (0.6, 0.95), (-0.6, 0.95)),
            _points((-0.05, -1), (0.8, 0.3), (-0.05, 0.3)),
            _points((-0.15, -0.7), (-0.15, 0.3), (-0.7, 0.3)),
            _points((-0.15, -1), (-0.05, -1), (-0.05, 0.4), (-0.15, 0.4)),
        ),
        upright=True,
    ),
    "hourglass": Outline((_points((-0.7, -1), (0.7, -1), (0.08, 0), (0.7, 1), (-0.7, 1), (-0.08, 0)),), upright=True),
    "mushroom": Outline(
        (
            np.concatenate([_circle()[30:], _circle()[:11]]) * (1.0, 0.9) + (0.0, 0.1),
            _points((-0.3, 0.05), (0.3, 0.05), (0.36, 1), (-0.36, 1)),
        ),
        upright=True,
    ),
    "key": Outline(
        (
            _circle(0.42, -0.55),
            _points((-0.25, -0.13), (1, -0.13), (1, 0.13), (-0.25, 0.13)),
            _points((0.55, 0), (0.72, 0), (0.72, 0.42), (0.55, 0.42)),
            _points((0.85, 0), (1, 0), (1, 0.42), (0.85, 0.42)),
        ),
        (_circle(0.2, -0.58),),
    ),
    "kite": Outline((_points((0, -1), (0.62, -0.3), (0, 1), (-0.62, -0.3)),)),
    "crown": Outline(
        (_points((-0.9, 0.7), (-1, -0.5), (-0.45, 0.05), (0, -0.8), (0.45, 0.05), (1, -0.5), (0.9, 0.7)),), upright=True
    ),
    "fish": Outline(
        (_circle(1.0) * (0.75, 0.48) + (-0.2, 0.0), _points((0.4, 0), (1, -0.55), (0.85, 0), (1, 0.55))), upright=True
    ),
}
