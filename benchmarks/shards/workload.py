"""Operations on a database that benchmarks kill, race and time: the same content for the same step, whoever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment
from retclip.shards import Database, Ledger
from retclip.shards.retention import collect

DIM = 64
ROWS = 600
UNITS = 6
CLASSES = 20
STEP_IDS = 100_000
SPACE = FeatureSpace("bench/none", "0" * 64, DIM, ("last",), 8, 256, 512, (0.5,) * 3, (0.25,) * 3, "", "mean")
_TEMPLATE = StoredSegment(
    1, "x", "x", "human", 1.0, "bench", "train", "i", "u", "0" * 64, 9, 9, (0, 0, 1, 1), 1, b"m" * 40, "", "", 0, 0, "",
    False, True, "", "",
)  # fmt: skip


def rows(step: int, count: int = ROWS) -> tuple[list[StoredSegment], npt.NDArray[np.float32]]:
    """Segments and vectors of a step: ids, classes and numbers follow from `step` alone."""
    rng = np.random.default_rng(step)
    first = 1 + step * STEP_IDS
    segments = [replace(_TEMPLATE, segment_id=first + n, label=f"class {n % CLASSES}") for n in range(count)]
    return segments, rng.standard_normal((count, DIM), np.float32)


def build(path: Path, step: int) -> None:
    """Units go to the ledger one by one, then all of them into one version, as a build of the indexer does."""
    ledger = Ledger(path, f"step-{step}")
    with ledger.running():
        segments, vectors = rows(step)
        size = ROWS // UNITS
        for unit in range(UNITS):
            part = slice(unit * size, (unit + 1) * size)
            if not ledger.has(f"{unit}"):
                ledger.put(f"{unit}", segments[part], vectors[part], {})
        with Database.open(path).write("build", "benchmark", shard_rows=250) as transaction:
            for unit in range(UNITS):
                transaction.add(*ledger.read(f"{unit}")[:2])
            transaction.commit()
        ledger.forget(ledger.units())


def add(path: Path, step: int) -> None:
    """One version with new rows in several shards."""
    with Database.open(path).write("add", "benchmark", shard_rows=250) as transaction:
        transaction.add(*rows(step))
        transaction.commit()


def delete(path: Path, step: int) -> None:
    """All rows of older steps, and every third row of the step before: the database stays small."""
    last = 1 + (step - 1) * STEP_IDS
    gone = {s.segment_id for _, _, s in Database.open(path).iter_segments() if s.segment_id < last}
    with Database.open(path).write("delete", "benchmark") as transaction:
        transaction.delete(segment_ids=[*sorted(gone), *range(last, last + ROWS, 3)])
        transaction.commit()


def compact(path: Path, step: int) -> None:
    """All shards are rewritten, whatever they need; a repetition does it again."""
    database = Database.open(path)
    with database.write("compact", "benchmark", shard_rows=500) as transaction:
        transaction.compact([entry.id for entry in database.manifest.shards])
        transaction.commit()


def gc(path: Path, step: int) -> None:
    """Only the newest version stays."""
    collect(path, 1)


OPERATIONS: dict[str, Callable[[Path, int], None]] = {
    "build": build,
    "add": add,
    "delete": delete,
    "compact": compact,
    "gc": gc,
}
