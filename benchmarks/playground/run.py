"""The paper's four tables in the playground, what goes beyond them, and whether the paper's order holds there.

    python -m benchmarks.playground.run --out benchmarks/playground/results.json

Draws scenes, builds databases, evaluates every row of `trials.TABLES` over several seeds, and writes JSON with a
Markdown page beside it. What is finished stays under `--work`: a run that was stopped goes on. Networks run once per
picture and kind of proposals. Remove that folder after changing code that labels or counts.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.playground.measure import Outcome, measure, observe, outcome_path
from benchmarks.playground.networks import network_figures
from benchmarks.playground.summary import summary
from benchmarks.playground.tables import markdown
from benchmarks.playground.trials import all_trials
from benchmarks.playground.world import World, run_identity
from retclip import __version__
from retclip.core.files import prepare_folder, write_bytes, write_json
from retclip.presets import load_preset

Task = tuple[str, Callable[..., Any], tuple[Any, ...]]


def main() -> None:
    """Measure what is missing and write the results."""
    options = parse()
    preset = load_preset(options.preset)
    name, networks = run_identity(preset, options.scenes, options.pictures)
    worlds = [
        World(options.work / name / f"seed-{seed}", preset, seed, options.scenes, options.pictures)
        for seed in range(1, options.seeds + 1)
    ]
    start = time.monotonic()
    with ProcessPoolExecutor(options.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        for stage in stages(worlds):
            carry_out(pool, stage, start)
    outcomes = {trial: [Outcome.read(outcome_path(world, trial)) for world in worlds] for trial in all_trials()}
    run = {
        "command": f"python -m benchmarks.playground.run {' '.join(sys.argv[1:])}".strip(),
        "retclip": __version__,
        "torch": torch.__version__,
        "preset": preset.name,
        "networks": networks,
        "seeds": options.seeds,
        "scenes": options.scenes,
        "pictures": options.pictures,
        "workers": options.workers,
        "cores": os.cpu_count(),
        "seconds_of_last_start": round(time.monotonic() - start),
    }
    results = {"run": run, **summary(outcomes, [network_figures(world) for world in worlds])}
    prepare_folder(options.out.parent)
    write_json(options.out, results)
    write_bytes(options.out.with_suffix(".md"), markdown(results).encode())
    tell(f"{options.out} and {options.out.with_suffix('.md')} written", start)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", help="name or TOML file; an FC-CLIP with detector and masker")
    parser.add_argument("--seeds", type=int, default=3, help="worlds, each with its own scenes")
    parser.add_argument("--scenes", type=int, default=200, help="pictures that teach a database")
    parser.add_argument("--pictures", type=int, default=60, help="pictures that are evaluated")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--work", type=Path, default=Path("out/playground"), help="scenes, databases and answers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/playground/results.json"), help="JSON file")
    return parser.parse_args()


def stages(worlds: Sequence[World]) -> list[list[Task]]:
    """What has to be done, each stage after the one before: draw and build, ask the networks, label, judge networks."""
    trials = all_trials()
    kinds = list(dict.fromkeys(trial.proposals for trial in trials))
    return [
        [(f"seed {world.seed}: scenes and databases", World.make, (world,)) for world in worlds],
        [(f"seed {world.seed}: {kind} observed", observe, (world, kind)) for kind in kinds for world in worlds],
        [
            (f"seed {world.seed}: {trial.described()}", measure, (world, trial))
            for trial in trials
            for world in worlds
            if not outcome_path(world, trial).is_file()
        ],
        [(f"seed {world.seed}: networks", network_figures, (world,)) for world in worlds],
    ]


def carry_out(pool: ProcessPoolExecutor, tasks: Sequence[Task], start: float) -> None:
    """Run the tasks of a stage in any order; the first failure stops the run."""
    futures = {pool.submit(function, *arguments): name for name, function, arguments in tasks}
    for done, future in enumerate(as_completed(futures), start=1):
        future.result()
        tell(f"{done}/{len(futures)} {futures[future]}", start)


def tell(text: str, start: float) -> None:
    """One line of progress."""
    print(f"{time.monotonic() - start:6.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
