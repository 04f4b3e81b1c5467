"""Labels of 2,000 kept pictures after a change of the database, against segmenting them again.

    python benchmarks/rescore/run.py --root $RETCLIP_TEST_DATA/coco_panoptic --home DIR --json rescore.json

Train photos are the database, less one class of three segments; val photos are segmented and kept. Their observations
are repeated up to `--pictures`, each copy with keys of its own (a little noise), so that nothing can be answered twice
from one search. Two changes follow one another: the small class comes back (`add`), then the class `--delete` leaves
(`delete`). The run stops unless the maps of rescored photos are, byte for byte, those of a full run over the same
version. What was prepared stays in `--home` and is used again.
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
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import normalize

from retclip.cli import rescore
from retclip.cli.main import main as retclip
from retclip.query import rescoring
from retclip.query.kept import KeptRun
from retclip.query.kept_nearby import NearbySearch
from retclip.query.matching import stored_vocabulary
from retclip.query.observations import ObservationStore, file_name
from retclip.query.question import Question, pose
from retclip.shards import open_database

PRESET = Path(__file__).parents[1] / "photo" / "preset.toml"
DATABASE = "rescore"
FORMATS = "panoptic,segments"
PROGRAM = "from retclip.cli.main import main; main()"
EXEMPLARS = 3  # segments of the class that is added
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


def small_class() -> str:
    """The first class with as many segments as somebody who adds a class brings."""
    database = open_database(DATABASE)
    return min(c.name for c in database.classes if database.snapshot.counts()[c.id][0] == EXEMPLARS)


def multiply(out: Path, pictures: int) -> int:
    """Repeat the kept pictures up to a number; returns the proposals of all."""
    kept = KeptRun.open(out)
    index = open_database(DATABASE)
    search = NearbySearch(kept.nearby, pose(index, stored_vocabulary(index), kept.facts.preset))
    originals = list(kept.records.values())
    files = [kept.store.folder / file_name(record.name) for record in originals]
    proposals = 0
    for number in range(pictures):
        record, file = originals[number % len(originals)], files[number % len(originals)]
        with safe_open(file, framework="pt") as opened:
            arrays, notes = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
        proposals += len(arrays["keys"])
        if number < len(originals):
            continue
        noise = torch.randn(arrays["keys"].shape, generator=torch.Generator().manual_seed(number))
        keys = normalize(arrays["keys"] + NOISE * normalize(noise, dim=1), dim=1)
        name = f"{number:05d}-{Path(record.name).name}"
        save_file(arrays | {"keys": keys}, kept.store.folder / file_name(name), metadata=notes)
        search.keep(name, keys)
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
    stages.watch("search", NearbySearch, "neighbors")
    stages.watch("score", Question, "weigh_all")
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


def prepare(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Database, kept pictures and their labels; returns what is to be reported of them."""
    home: Path = options.home
    for folder in (home / "db" / f"{DATABASE}.retdb", out, home / "full"):
        shutil.rmtree(folder, ignore_errors=True)
    source = ("--source", "coco", "--root", options.root, "--use-masks")
    command("index", "build", *source, "--db", DATABASE, "--preset", PRESET)
    name = small_class()
    command("db", "delete", DATABASE, "--label", name, "--yes")
    photos = photos_of(options)
    full = segment(photos, home / "full")
    kept = segment(photos, out, "--keep")
    proposals = multiply(out, options.pictures)
    command("rescore", out, "--formats", FORMATS)  # the labels of the copies are their own
    disk = sum(path.stat().st_size for path in (out / "kept").rglob("*.safetensors"))
    facts = {
        "pictures": options.pictures,
        "photos": len(photos),
        "proposals": proposals,
        "added": name,
        "full_run_seconds_per_picture": round(full, 3),
        "full_run_with_keep_seconds_per_picture": round(kept, 3),
        "full_run_seconds_extrapolated": round(full * options.pictures),
        "kept_bytes_per_picture": disk // options.pictures,
    }
    (home / "saved").mkdir(exist_ok=True)
    for source_path, saved in saved_files(home, out):
        copy(source_path, saved)
    (home / "prepared.json").write_text(json.dumps(facts))
    return facts


def saved_files(home: Path, out: Path) -> list[tuple[Path, Path]]:
    """What a rescoring or a change rewrites, with its copy."""
    paths = [home / "db", out / "kept" / "labels.json", out / "panoptic.json", out / "run.json"]
    return [(path, home / "saved" / path.name) for path in paths]


def copy(source: Path, target: Path) -> None:
    """Put a file or folder in the place of another."""
    if source.is_dir():
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
    else:
        shutil.copy2(source, target)


def photos_of(options: argparse.Namespace) -> list[Path]:
    """Val photos that are really segmented."""
    return sorted((options.root / "val2017").glob("*.jpg"))[: options.photos]


def case(out: Path, photos: list[Path], again: Path, *change: object) -> dict[str, Any]:
    """Figures of one change of the database."""
    command("db", *change)
    dry, found = dry_run(out)
    stages = measure(out)
    check(photos[:5], out, again)
    return {"changed": found["changed"], "dry_run_seconds": round(dry, 2), "seconds_by_stage": stages}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="COCO panoptic folder")
    parser.add_argument("--home", type=Path, required=True, help="folder for the database and the results")
    parser.add_argument("--photos", type=int, default=60, help="val photos that are really segmented")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--delete", default="person", help="class that leaves the database")
    parser.add_argument("--prepare", action="store_true", help="only prepare --home, for a later run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["RETCLIP_HOME"] = str(options.home)
    out, prepared = options.home / "out", options.home / "prepared.json"
    facts = json.loads(prepared.read_text()) if prepared.is_file() else prepare(options, out)
    if options.prepare:
        return
    for path, saved in saved_files(options.home, out):
        copy(saved, path)
    photos, again = photos_of(options), options.home / "again"
    figures = {
        **facts,
        "deleted": options.delete,
        "add": case(out, photos, again, "undo", DATABASE),
        "delete": case(out, photos, again, "delete", DATABASE, "--label", options.delete, "--yes"),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
