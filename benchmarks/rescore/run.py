"""Labels of 2,000 kept pictures after a class was deleted, against segmenting them again.

    python benchmarks/rescore/run.py --root $RETCLIP_TEST_DATA/coco_panoptic --home DIR --json rescore.json

Train photos are the database, val photos are segmented and kept. Their observations are repeated up to `--pictures`,
each copy with keys of its own (a little noise), so that nothing can be answered twice from one search. The run stops
unless the maps of rescored photos are, byte for byte, those of a full run over the same version.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from retclip.cli import rescore
from retclip.cli.main import main as retclip
from retclip.query import question, rescoring
from retclip.query.kept import KeptRun
from retclip.query.observations import ObservationStore, ObservedImage

PRESET = Path(__file__).parents[1] / "photo" / "preset.toml"
DATABASE = "rescore"
FORMATS = "panoptic,segments"
PROGRAM = "from retclip.cli.main import main; main()"
NOISE = 0.01  # length of what is added to a unit key


def command(*words: object) -> None:
    """One command line; stops the benchmark when it fails."""
    if code := retclip([*map(str, words), "--quiet"]):
        raise SystemExit(code)


def segment(photos: list[Path], out: Path, *more: str) -> float:
    """Segment photos and return the seconds of each, on average, decoding and writing included."""
    start = time.perf_counter()
    command("segment", *photos, "--db", DATABASE, "--preset", PRESET, "--formats", FORMATS, "--out", out, *more)
    return (time.perf_counter() - start) / len(photos)


def multiply(out: Path, pictures: int) -> int:
    """Repeat the kept pictures up to a number; returns the proposals of all."""
    kept = KeptRun.open(out)
    originals = list(kept.records.values())
    proposals = 0
    for number in range(pictures):
        record = originals[number % len(originals)]
        image = kept.store.load(record.name)
        proposals += len(image.masks)
        if number < len(originals):
            continue
        noise = torch.randn(image.observation.keys.shape, generator=torch.Generator().manual_seed(number))
        keys = image.observation.keys + NOISE * torch.nn.functional.normalize(noise, dim=1)
        observation = replace(image.observation, keys=torch.nn.functional.normalize(keys, dim=1))
        name = f"{number:05d}-{Path(record.name).name}"
        kept.store.store(name, ObservedImage(image.sha256, image.masks, observation))
        kept.records[name] = replace(record, name=name)
    kept.save_records()
    return proposals


class Stages:
    """Seconds spent inside functions of the package."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = False

    def watch(self, stage: str, owner: Any, name: str) -> None:
        """Count the time of a function of a module or class, unless another that is watched has called it."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            if self._inside:
                return inner(*args, **options)
            start, self._inside = time.perf_counter(), True
            try:
                return inner(*args, **options)
            finally:
                self.seconds[stage] += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, timed)


def measure(out: Path) -> dict[str, Any]:
    """One rescoring in this process, by stage; what no stage covers is `rest`."""
    stages = Stages()
    stages.watch("read", ObservationStore, "load_outline")
    stages.watch("search", question, "find_neighbors")
    stages.watch("score", question, "weigh")
    stages.watch("decide", rescoring, "decide")
    stages.watch("write", rescore, "_write")
    start = time.perf_counter()
    command("rescore", out, "--formats", FORMATS)
    total = time.perf_counter() - start
    rounded = {stage: round(seconds, 2) for stage, seconds in stages.seconds.items()}
    return {**rounded, "rest": round(total - sum(stages.seconds.values()), 2), "total": round(total, 2)}


def dry_run(out: Path) -> tuple[float, dict[str, Any]]:
    """Seconds and findings of a dry run in a process of its own, its start included."""
    start = time.perf_counter()
    words = [sys.executable, "-c", PROGRAM, "rescore", str(out), "--dry-run", "--json", "--quiet"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return time.perf_counter() - start, json.loads(done.stdout)


def check(photos: list[Path], out: Path, folder: Path) -> None:
    """Photos segmented again must give the maps and labels of the rescored ones."""
    segment(photos, folder)
    for photo in photos:
        names = (f"{photo.stem}/panoptic.png", f"panoptic/{photo.stem}.png")
        for name in names:
            if (folder / name).is_file() and (folder / name).read_bytes() != (out / name).read_bytes():
                raise SystemExit(f"{name} is not what a full run gives")
        mine, full = (json.loads((root / photo.stem / "segments.json").read_text()) for root in (out, folder))
        if [s["label"] for s in mine["segments"]] != [s["label"] for s in full["segments"]]:
            raise SystemExit(f"{photo.stem}: labels are not those of a full run")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="COCO panoptic folder")
    parser.add_argument("--home", type=Path, required=True, help="folder for the database and the results")
    parser.add_argument("--photos", type=int, default=60, help="val photos that are really segmented")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--delete", default="person", help="class that leaves the database")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["RETCLIP_HOME"] = str(options.home)
    shutil.rmtree(options.home / "db" / f"{DATABASE}.retdb", ignore_errors=True)
    command(
        "index",
        "build",
        "--source",
        "coco",
        "--root",
        options.root,
        "--use-masks",
        "--db",
        DATABASE,
        "--preset",
        PRESET,
    )
    photos = sorted((options.root / "val2017").glob("*.jpg"))[: options.photos]
    out = options.home / "out"
    for folder in (out, options.home / "full"):
        shutil.rmtree(folder, ignore_errors=True)
    full = segment(photos, options.home / "full")
    kept = segment(photos, out, "--keep")
    proposals = multiply(out, options.pictures)
    command("db", "delete", DATABASE, "--label", options.delete, "--yes")
    dry, found = dry_run(out)
    stages = measure(out)
    check(photos[:5], out, options.home / "again")
    disk = sum(path.stat().st_size for path in (out / "kept").rglob("*.safetensors"))
    figures = {
        "pictures": options.pictures,
        "photos": len(photos),
        "proposals": proposals,
        "deleted": options.delete,
        "changed": found["changed"],
        "dry_run_seconds": round(dry, 2),
        "seconds_by_stage": stages,
        "full_run_seconds_per_picture": round(full, 3),
        "full_run_with_keep_seconds_per_picture": round(kept, 3),
        "full_run_seconds_extrapolated": round(full * options.pictures),
        "kept_bytes_per_picture": disk // options.pictures,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
