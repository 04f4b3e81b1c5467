"""How many exemplars teach a class: panoptic quality of unseen classes against the exemplars of each.

    python -m benchmarks.playground.exemplars --out benchmarks/playground/exemplars.json

Goes on from the scenes, databases and observations of `benchmarks.playground.run`, which must have been carried out.
Of every unseen class the database of domain A keeps the largest annotated masks, one a picture, as somebody would
choose who teaches; seen classes keep all. Detector and SAM propose, with the settings of the preset `tiny`.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.playground.intervals import quality_of
from benchmarks.playground.measure import Counts, counted
from benchmarks.playground.trials import DETECTED, ENSEMBLE
from benchmarks.playground.world import GROUPS, SEEN, VOCABULARY, World, run_identity
from retclip.core.files import write_bytes, write_json
from retclip.core.segments import StoredSegment
from retclip.presets import load_preset
from retclip.shards import Database
from retclip.shards.copying import copy_database

NUMBERS = (0, 1, 3, 10, None)  # None: all that 200 scenes show
TRIAL = replace(DETECTED, fusion=replace(ENSEMBLE, gamma=0.7))


def with_exemplars(database: Database, path: Path, number: int | None) -> Database:
    """A copy of a database in which every unseen class has at most so many exemplars; itself without a limit."""
    if number is None:
        return database
    copied = copy_database(database, path, (), "benchmark")
    by_class: defaultdict[str, list[StoredSegment]] = defaultdict(list)
    for _, _, segment in copied.iter_segments():
        by_class[segment.label].append(segment)
    unseen = [category.name for category, seen in zip(VOCABULARY, SEEN, strict=True) if not seen]
    gone = [segment.segment_id for name in unseen for segment in surplus(by_class[name], number)]
    with copied.write("delete", "benchmark") as transaction:
        transaction.delete(segment_ids=gone)
        return transaction.commit()


def surplus(segments: Sequence[StoredSegment], number: int) -> list[StoredSegment]:
    """All but the largest `number`, of which no two are of one picture."""
    kept: dict[str, StoredSegment] = {}
    for segment in sorted(segments, key=lambda segment: (-segment.area, segment.segment_id)):
        if len(kept) < number:
            kept.setdefault(segment.image_id, segment)
    chosen = {segment.segment_id for segment in kept.values()}
    return [segment for segment in segments if segment.segment_id not in chosen]


def figures(counts: Sequence[Counts]) -> dict[str, Any]:
    """PQ by group (mean over seeds) and of every unseen class (pictures of all seeds together), percent."""
    groups = {name: [quality_of(table, chosen) for table in counts] for name, chosen in GROUPS.items()}
    together = np.concatenate(counts)
    classes = {
        category.name: round(float(quality_of(together, np.arange(len(VOCABULARY)) == column)), 1)
        for column, category in enumerate(VOCABULARY)
        if not SEEN[column]
    }
    means = {
        name: {"mean": round(float(np.mean(v)), 2), "seeds": np.round(v, 2).tolist()} for name, v in groups.items()
    }
    return {"pq": means, "pq_of_classes": classes}


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The same as a page."""
    lines = ["# How many exemplars teach a class", "", "    python -m benchmarks.playground.exemplars", ""]
    lines += ["PQ, percent; groups: mean over seeds, classes: the pictures of all seeds together.", ""]
    lines += ["| exemplars of each unseen class | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for group in GROUPS:
        lines.append(
            f"| {group} classes | " + " | ".join(f"{f['pq'][group]['mean']:.1f}" for f in found.values()) + " |"
        )
    for name in next(iter(found.values()))["pq_of_classes"]:
        lines.append(f"| {name} | " + " | ".join(f"{f['pq_of_classes'][name]:.1f}" for f in found.values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write JSON with a page beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--work", type=Path, default=Path("out/playground"), help="that of the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/playground/exemplars.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = load_preset("tiny")
    name, _ = run_identity(preset, options.scenes, options.pictures)
    folders = [options.work / name / f"seed-{seed}" for seed in range(1, options.seeds + 1)]
    worlds = [World(folder, preset, n, options.scenes, options.pictures) for n, folder in enumerate(folders, start=1)]
    found = {}
    for number in NUMBERS:
        counts = []
        for world in worlds:
            with TemporaryDirectory() as place:
                database = with_exemplars(Database.open(world.database_path("a")), Path(place) / "few.retdb", number)
                counts.append(counted(world, TRIAL, database).counts)
        found["all" if number is None else str(number)] = figures(counts)
    page = markdown(found)
    print(page)
    write_json(options.out, {"command": "python -m benchmarks.playground.exemplars", "exemplars": found})
    write_bytes(options.out.with_suffix(".md"), page.encode())


if __name__ == "__main__":
    main()
