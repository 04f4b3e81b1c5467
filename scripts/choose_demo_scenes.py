"""How often the demo's scenes show its classes, by seed: python scripts/choose_demo_scenes.py [--seeds 40].

The seed of `retclip.cli.demo_walk.PLAN` is taken from here: by what the test scenes show, never by how they come out.
"""

from __future__ import annotations

import argparse

import numpy as np

from retclip.cli.demo_walk import PLAN
from retclip.corpora.playground import CLASSES, SceneSettings, compose
from retclip.corpora.playground.export import SPLITS


def largest_objects(seed: int, names: list[str]) -> dict[str, list[int]]:
    """Per class, pixels of its largest object in every test scene that shows one, the largest first."""
    settings = SceneSettings.of("a", seed=seed)
    found: dict[str, list[int]] = {name: [] for name in names}
    for number in range(PLAN.test):
        scene = compose(settings, SPLITS["test"] + number)
        areas = np.bincount(scene.ids.ravel(), minlength=len(scene.classes) + 1)[1:].tolist()
        for name in names:
            own = [area for area, column in zip(areas, scene.classes, strict=True) if CLASSES[column].name == name]
            found[name] += [max(own)] if own else []
    return {name: sorted(areas, reverse=True) for name, areas in found.items()}


def main() -> None:
    """Print the seeds, those first whose rarer class is shown most often."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--classes", default=f"{PLAN.taught},{PLAN.other}")
    arguments = parser.parse_args()
    names = arguments.classes.split(",")
    rows = [(seed, largest_objects(seed, names)) for seed in range(1, arguments.seeds + 1)]
    for seed, found in sorted(rows, key=lambda row: -min(map(len, row[1].values()))):
        print(f"seed {seed:3d}  " + "  ".join(f"{name}: {len(areas)} {areas[:4]}" for name, areas in found.items()))


if __name__ == "__main__":
    main()
