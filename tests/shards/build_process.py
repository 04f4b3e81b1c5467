"""Builds a fixed database in a process of its own, so that a test can kill it: path, generations, rows of each."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from retclip.core.segments import StoredSegment
from retclip.shards import Database


def main(path: Path, generations: int, size: int) -> None:
    """Add `generations` batches, each in its own version and in several shards; already stored rows add nothing."""
    template = StoredSegment(
        1, "x", "x", "human", 1.0, "s", "train", "i", "u", "0" * 64, 9, 9, (0, 0, 1, 1), 1, b"m", "", "", 0, 0, "",
        False, True, "", "",
    )  # fmt: skip
    for generation in range(generations):
        rng = np.random.default_rng(generation)
        first = 1 + generation * size
        segments = [replace(template, segment_id=first + n, label=f"class {n % 7}") for n in range(size)]
        with Database.open(path).write("build", "child", shard_rows=size // 3) as transaction:
            transaction.add(segments, rng.normal(size=(size, 32)))
            transaction.delete(segment_ids=[first])
            version = transaction.commit().version
        print(version, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
