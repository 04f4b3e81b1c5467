"""Writing and opening: rows a second and memory of a build, adding 1,000 segments, opening a large database.

    python benchmarks/shards/write.py --rows 50000 100000 200000 --work /tmp/shards --out benchmarks/shards/write.json

Each build runs in a process of its own, because peak memory can only be read for a whole process. The vectors are made
before the clock starts, batch by batch; records are made on the way and their time is counted apart.
The database of 10^7 rows is opened, not searched: its manifest is real, the files of its
shards are sparse: right sizes, only zeros. `Database.open` reads none of them, which is what is shown.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from data import DIM, Source, batches, build, segment, space

from retclip.shards import Database
from retclip.shards.classes import ClassEntry, ClassTable
from retclip.shards.creation import create_folder, timestamp
from retclip.shards.durable import FileEntry, new_id
from retclip.shards.manifest import Manifest, ShardEntry

ADDED, OPEN_ROWS, OPEN_SHARD_ROWS = 1_000, 10_000_000, 262_144

ROW_BYTES = {"vectors.f16": DIM * 2, "meta.parquet": 60, "blobs.arrow": 90, "classes.arrow": 1, "ids.u64": 12}
SHARD_BYTES = {"moments.i64": (DIM + 1) * DIM * 8, "shard.json": 900}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", type=int, help="build one database in this process; used by the program itself")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(build_once(args.work / "one.retdb", args.one)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    builds = []
    for rows in args.rows:
        command = [sys.executable, __file__, "--one", str(rows), "--work", str(args.work), "--out", str(args.out)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        builds.append(json.loads(done.stdout))
        print(builds[-1], flush=True)
    result = {"builds": builds, "add": add(args.work, max(args.rows)), "open": open_large(args.work / "open.retdb")}
    print(result["add"], result["open"], sep="\n")
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def build_once(path: Path, rows: int) -> dict[str, Any]:
    """Rows a second of the writer, and the most memory that the process ever had."""
    shutil.rmtree(path, ignore_errors=True)
    database, writing, number = Database.create(path, space(), {}), 0.0, 0
    with database.write("build", "benchmarks") as transaction:
        for labels, vectors in batches(Source.make(), rows):
            segments = [segment(number + i, int(label)) for i, label in enumerate(labels)]
            number += len(labels)
            begun = time.perf_counter()
            transaction.add(segments, vectors)
            writing += time.perf_counter() - begun
        begun = time.perf_counter()
        transaction.commit()
        writing += time.perf_counter() - begun
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    shutil.rmtree(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "rows_per_second": round(rows / writing), "peak_bytes": peak, "bytes_per_row": size // rows}


def add(work: Path, rows: int) -> dict[str, Any]:
    """Seconds from a first row to a published version, for a new class in a database of `rows` rows."""
    path = work / "add.retdb"
    shutil.rmtree(path, ignore_errors=True)
    build(path, rows)
    vectors = Source.make().draw(np.zeros(ADDED, np.int64), 1 << 41)
    seconds = []
    for round_ in range(5):
        segments = [segment(rows + round_ * ADDED + i, 2_000 + round_) for i in range(ADDED)]
        database = Database.open(path)
        begun = time.perf_counter()
        with database.write("add", "benchmarks") as transaction:
            transaction.add(segments, vectors)
            transaction.commit()
        seconds.append(time.perf_counter() - begun)
    shutil.rmtree(path)
    return {"added": ADDED, "to_rows": rows, "seconds": [round(s, 3) for s in seconds]}


def open_large(path: Path) -> dict[str, Any]:
    """Seconds to open 10^7 rows in 39 shards whose files have the right sizes and nothing in them."""
    shutil.rmtree(path, ignore_errors=True)
    shards = []
    for begin in range(0, OPEN_ROWS, OPEN_SHARD_ROWS):
        rows = min(OPEN_SHARD_ROWS, OPEN_ROWS - begin)
        files = {name: FileEntry(rows * size, "0" * 64) for name, size in ROW_BYTES.items()}
        files |= {name: FileEntry(size, "0" * 64) for name, size in SHARD_BYTES.items()}
        shards.append(ShardEntry(new_id(), rows, files, {"synthetic": rows}, {"CC0-1.0": rows}))
    table = ClassTable((ClassEntry(0, "class 0000"),), 1)
    manifest = Manifest(
        1, 0, timestamp(), "create", "", "benchmarks", space(), {}, "none", table, {0: (OPEN_ROWS, 0)}, tuple(shards)
    )
    create_folder(path, manifest)
    for entry in shards:
        folder = path / "shards" / entry.id
        folder.mkdir(parents=True)
        for name, file in entry.files.items():
            with (folder / name).open("wb") as stream:
                stream.truncate(file.bytes)
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        database = Database.open(path)
        seconds.append(time.perf_counter() - begun)
    assert len(database) == OPEN_ROWS
    shutil.rmtree(path)
    return {"rows": OPEN_ROWS, "shards": len(shards), "seconds": [round(s, 4) for s in seconds]}


if __name__ == "__main__":
    main()
