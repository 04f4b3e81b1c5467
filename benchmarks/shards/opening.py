"""Opening a database of 10^7 rows, and adding 1,000 segments to it.

    python benchmarks/shards/opening.py --work /tmp/shards --out benchmarks/shards/opening.json

The rows are real and go through the real writer, ten versions of a million; vectors have 64 dimensions, because 768
would need 17 GB. Opening reads no vector, so the dimension matters little to it. A build that was interrupted, or ended
by `--until`, goes on where it was. Every opening is timed in a process of its own, after its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from data import segment, space

from retclip.shards import Database

DIM, CLASSES, BATCH, STEP = 64, 1_000, 10_000, 1_000_000
ADDED, TURNS = 1_000, 5

OPEN = """
import sys, time, retclip.shards
from pathlib import Path
begun = time.perf_counter()
database = retclip.shards.Database.open(Path(sys.argv[1]))
opened = time.perf_counter()
len(database), database.classes
print(opened - begun)
"""


def main() -> None:
    """Build what is missing, time, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--until", type=int, help="build so many rows and stop")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    path = args.work / "open.retdb"
    database = Database.open(path) if path.exists() else Database.create(path, replace(space(), dim=DIM), {})
    while len(database) < (args.until or args.rows):
        database = grow(database)
        print(len(database), flush=True)
    if args.until:
        return
    result = measure(path)
    print(result)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    shutil.rmtree(path)


def grow(database: Database) -> Database:
    """One more version with `STEP` more rows."""
    first = len(database)
    with database.write("build", "benchmarks") as transaction:
        for start in range(first, first + STEP, BATCH):
            rng = np.random.default_rng(start)
            labels = rng.integers(0, CLASSES, BATCH).tolist()
            segments = [segment(start + i, label) for i, label in enumerate(labels)]
            transaction.add(segments, rng.standard_normal((BATCH, DIM), np.float32))
        return transaction.commit()


def measure(path: Path) -> dict[str, Any]:
    """Seconds of opening and of adding."""
    opening = [
        float(subprocess.run([sys.executable, "-c", OPEN, str(path)], check=True, capture_output=True).stdout)
        for _ in range(TURNS)
    ]
    database = Database.open(path)
    manifest = database.manifest
    rows, size = len(database), sum(file.bytes for entry in manifest.shards for file in entry.files.values())
    adding = []
    for turn in range(TURNS):
        segments = [segment(rows + turn * ADDED + i, CLASSES + turn) for i in range(ADDED)]
        vectors = np.random.default_rng(turn).standard_normal((ADDED, DIM), np.float32)
        begun = time.perf_counter()
        with Database.open(path).write("add", "benchmarks") as transaction:
            transaction.add(segments, vectors)
            transaction.commit()
        adding.append(round(time.perf_counter() - begun, 3))
    return {
        "rows": rows,
        "dim": DIM,
        "shards": len(manifest.shards),
        "bytes": size,
        "open_seconds": [round(seconds, 4) for seconds in opening],
        "added": ADDED,
        "add_seconds": adding,
        "load": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
