"""A slice of the benchmark for every change, and the noise below which nothing has changed.

    python -m benchmarks.playground.slice --out tests/data/playground_slice.json

`tests/test_playground.py` measures the slice again and refuses figures that fell by more than the noise. Run this after
a change of weights or of results that is meant, and commit the file with it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.playground.intervals import quality_of
from benchmarks.playground.measure import Outcome, measure, observe, outcome_path
from benchmarks.playground.trials import DETECTED, IN_DOMAIN, Trial
from benchmarks.playground.world import GROUPS, World, run_identity
from retclip.core.files import write_json
from retclip.presets import Preset, load_preset

SEED, SCENES, PICTURES = 1000, 40, 16
ROWS: dict[str, Trial] = {"FC-CLIP and database": IN_DOMAIN, "Grounding DINO, SAM and database": DETECTED}
REPEATS = 8

Figures = dict[str, dict[str, float]]


def slice_world(folder: Path, preset: Preset) -> World:
    """Scenes and database of the slice."""
    world = World(folder, preset, SEED, SCENES, PICTURES)
    world.draw("a", "train")
    world.draw("a", "val")
    world.build("a")
    return world


def slice_figures(world: World) -> Figures:
    """Row -> PQ of all and of unseen classes, percent."""
    figures: Figures = {}
    for name, trial in ROWS.items():
        observe(world, trial.proposals)
        measure(world, trial)
        counts = Outcome.read(outcome_path(world, trial)).counts
        figures[name] = {group: round(quality_of(counts, GROUPS[group]), 4) for group in ("all", "unseen")}
    return figures


def noise_of(world: World, figures: Figures) -> Figures:
    """How far the figures move, at most, when every channel of every picture moves by at most one grey level.

    The pictures of the world are spoilt.
    """
    noise: Figures = {row: dict.fromkeys(groups, 0.0) for row, groups in figures.items()}
    paths = sorted((world.folder / "a" / "val2017").glob("*.png"))
    originals = [np.asarray(Image.open(path), np.int16) for path in paths]
    for seed in range(REPEATS):
        random = np.random.default_rng(seed)
        for path, pixels in zip(paths, originals, strict=True):
            moved = np.clip(pixels + random.integers(-1, 2, pixels.shape), 0, 255)
            Image.fromarray(moved.astype(np.uint8)).save(path)
        for name in ("observed", "outcomes"):
            shutil.rmtree(world.folder / name)
        for row, groups in slice_figures(world).items():
            for group, value in groups.items():
                noise[row][group] = max(noise[row][group], round(abs(value - figures[row][group]), 4))
    return noise


def main() -> None:
    """Measure the slice and its noise, and write both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="name or TOML file")
    parser.add_argument("--out", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    preset = load_preset(options.preset)
    _, networks = run_identity(preset, SCENES, PICTURES)
    with TemporaryDirectory() as folder:
        world = slice_world(Path(folder), preset)
        figures = slice_figures(world)
        noise = noise_of(world, figures)
    command = f"python -m benchmarks.playground.slice --out {options.out}"
    write_json(options.out, {"command": command, "networks": networks, "pq": figures, "noise": noise})


if __name__ == "__main__":
    main()
