"""Eight readers and one writer on one database: every answer must be that of one version.

python benchmarks/shards/readers.py [--minutes 5] [--readers 8] [--out benchmarks/shards/readers.json]

The writer adds, deletes, compacts and removes all old versions without pause. Readers open the newest version, search
it, and check that what they see fits together: counts, labels and distances. Latencies are printed in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.shards.workload import DIM, OPERATIONS, SPACE, add
from retclip.core.segments import Neighbors
from retclip.shards import Database, verify

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    Results = Queue[tuple[dict[str, list[float]], set[int]]]  # durations in seconds by call, versions seen

QUERIES = 100
K = 16


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one kind of call."""

    calls: int
    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Percentiles of some durations."""
        values = 1000 * np.array(seconds)
        return cls(len(values), *(round(float(np.percentile(values, q)), 2) for q in (50, 95, 99, 100)))


def main() -> int:
    """Print a table and write it as JSON; exit code 1 when a reader saw something that no version holds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--minutes", type=float, default=5.0)
    options.add_argument("--readers", type=int, default=8)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("readers.json"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        latencies, seen = run(Path(folder) / "shared.retdb", 60 * given.minutes, given.readers)
    print(f"{'call':10} {'calls':>8} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} {'worst ms':>9}")
    for name, latency in latencies.items():
        print(f"{name:10} {latency.calls:8} {latency.p50:9} {latency.p95:9} {latency.p99:9} {latency.worst:9}")
    print(f"{given.readers} readers saw {seen} versions; every answer was that of one version")
    record = {
        "minutes": given.minutes,
        "readers": given.readers,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "queries": QUERIES,
        "k": K,
        "versions_seen": seen,
        "latency_ms": {name: asdict(latency) for name, latency in latencies.items()},
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def run(path: Path, seconds: float, readers: int) -> tuple[dict[str, Latency], int]:
    """Latencies by call and how many versions were seen. Raises AssertionError when a process failed."""
    Database.create(path, SPACE, {})
    add(path, 0)
    context = multiprocessing.get_context("spawn")
    results: Results = context.Queue()
    start = context.Barrier(readers + 1)
    workers = [context.Process(target=_read, args=(path, seconds, start, results)) for _ in range(readers)]
    workers.append(context.Process(target=_write, args=(path, seconds, start, results)))
    for worker in workers:
        worker.start()
    durations: dict[str, list[float]] = {}
    seen: set[int] = set()
    for _ in workers:
        part, versions = results.get(timeout=seconds + 300)
        seen |= versions
        for name, values in part.items():
            durations.setdefault(name, []).extend(values)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    report = verify(path, deep=True)
    assert report.ok, report.problems
    return {name: Latency.of(values) for name, values in sorted(durations.items())}, len(seen)


def _write(path: Path, seconds: float, start: Barrier, results: Results) -> None:
    """Add, delete, compact and collect in turn."""
    start.wait(timeout=300)
    durations: dict[str, list[float]] = {}
    end = time.perf_counter() + seconds
    step = 0
    while time.perf_counter() < end:
        for name in ("add", "delete", "compact", "gc"):
            step += name in ("add", "delete")
            started = time.perf_counter()
            OPERATIONS[name](path, step)
            durations.setdefault(name, []).append(time.perf_counter() - started)
    results.put((durations, set()))


def _read(path: Path, seconds: float, start: Barrier, results: Results) -> None:
    """Open, search and look up the hits, and check them against each other."""
    durations: dict[str, list[float]] = {"open": [], "search": [], "read": []}
    rng = np.random.default_rng(os.getpid())
    seen: set[int] = set()
    Database.open(path).search(rng.normal(size=(QUERIES, DIM)), K)  # libraries load on the first search
    start.wait(timeout=300)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times = [time.perf_counter()]
        database = Database.open(path)
        times.append(time.perf_counter())
        queries = rng.normal(size=(QUERIES, DIM))
        found = database.search(queries, K) if len(database) else None
        times.append(time.perf_counter())
        if found is not None:
            _check(database, queries, found)
        times.append(time.perf_counter())
        for name, value in zip(("open", "search", "read"), np.diff(times).tolist(), strict=True):
            durations[name].append(value)
        seen.add(database.version)
    results.put((durations, seen))


def _check(database: Database, queries: npt.NDArray[np.float64], found: Neighbors) -> None:
    """The first query's hits are live rows of this version, labelled as it says, at the distance it says."""
    assert sum(item.count for item in database.classes) == len(database)
    places = [(int(s), int(r)) for s, r in zip(found.shard[0], found.row[0], strict=True) if s >= 0]
    assert len(places) == min(K, len(database))
    names = {item.id: item.name for item in database.classes}
    stored = database.segments(places)
    assert [segment.label for segment in stored] == [names[int(c)] for c in found.class_id[0][: len(places)]]
    assert [segment.segment_id for segment in stored] == found.segment_id[0][: len(places)].tolist()
    unit = queries[0] / np.linalg.norm(queries[0])
    vectors = database.vectors(places).astype(np.float64)
    distance = 1 - (vectors @ unit) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(found.distance[0][: len(places)], distance, atol=1e-5)


if __name__ == "__main__":
    sys.exit(main())
