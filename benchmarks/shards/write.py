"""Writing: rows a second and memory of a build, beside other writers, and adding 1,000 segments to a large database.

    python benchmarks/shards/write.py --rows 100000 300000 1000000 --work /tmp/shards --out benchmarks/shards/write.json

Each build runs in a process of its own, because peak memory can only be read for a whole process. The vectors are made
before the clock starts, batch by batch; records are made on the way and their time is counted apart. Other writers take
turns with ours over the same rows, which are in memory before any clock starts. `opening.py` opens 10^7 rows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from data import DIM, Source, batches, segment, space

from retclip.core.segments import StoredSegment
from retclip.shards import Database, tables

ADDED, ROUNDS = 1_000, 5
PEER_ROWS, PEER_TURNS = 131_072, 3

Batch = tuple[list[StoredSegment], npt.NDArray[np.float32]]


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", type=int, help="build one database in this process; used by the program itself")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(build_once(args.work / "one.retdb", args.one)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    builds = []
    for rows in sorted(args.rows):
        command = [sys.executable, __file__, "--one", str(rows), "--work", str(args.work), "--out", str(args.out)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        builds.append(json.loads(done.stdout))
        print(builds[-1], flush=True)
    added = add(args.work / "one.retdb")
    print(added, flush=True)
    shutil.rmtree(args.work / "one.retdb")
    result = {"builds": builds, "add": added, "writers": writers(args.work / "writers"), "load": os.getloadavg()}
    print(result["writers"])
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def build_once(path: Path, rows: int) -> dict[str, Any]:
    """Rows a second of the writer, and the most memory that the process ever had; the database stays."""
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "rows_per_second": round(rows / writing), "peak_bytes": peak, "bytes_per_row": size // rows}


def add(path: Path) -> dict[str, Any]:
    """Seconds from opening a database to a published version of it with a new class of `ADDED` segments.

    `floor_seconds` is a bare write and flush of as many bytes as the largest of the new files.
    """
    vectors = Source.make().draw(np.zeros(ADDED, np.int64), 1 << 41)
    rows, seconds, floor = len(Database.open(path)), [], []
    for round_ in range(ROUNDS):
        segments = [segment(rows + round_ * ADDED + i, 2_000 + round_) for i in range(ADDED)]
        begun = time.perf_counter()
        with Database.open(path).write("add", "benchmarks") as transaction:
            transaction.add(segments, vectors)
            transaction.commit()
        seconds.append(round(time.perf_counter() - begun, 3))
        floor.append(round(_timed(write_bytes, path.with_name("floor"), [(segments, vectors)]), 4))
    return {"added": ADDED, "to_rows": rows, "seconds": seconds, "floor_seconds": floor}


def writers(folder: Path) -> dict[str, Any]:
    """Seconds of each writer for the same rows, turn by turn, and how many times longer ours takes."""
    source, held, number = Source.make(), [], 0
    for labels, vectors in batches(source, PEER_ROWS):
        held.append(([segment(number + i, int(label)) for i, label in enumerate(labels)], vectors))
        number += len(labels)
    seconds: dict[str, list[float]] = {name: [] for name in WRITERS}
    size: dict[str, int] = {}
    for _ in range(PEER_TURNS):
        for name, write in WRITERS.items():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            seconds[name].append(round(_timed(write, folder / name, held), 2))
            size[name] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // number
    shutil.rmtree(folder)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = {name: round(middle["retclip"] / value, 2) for name, value in middle.items()}
    return {"rows": number, "seconds": seconds, "retclip_times_longer": ratio, "bytes_per_row": size}


def _timed(write: Callable[[Path, list[Batch]], None], path: Path, held: list[Batch]) -> float:
    begun = time.perf_counter()
    write(path, held)
    return time.perf_counter() - begun


def write_retclip(path: Path, held: list[Batch]) -> None:
    """Ours: no id twice, unit length, sorted, digests, moments, everything flushed, one version."""
    with Database.create(path, space(), {}).write("build", "benchmarks") as transaction:
        for segments, vectors in held:
            transaction.add(segments, vectors)
        transaction.commit()


def write_bytes(path: Path, held: list[Batch]) -> None:
    """The floor: the vectors as binary16 in one file, flushed; no records at all."""
    with path.open("wb") as stream:
        for _, vectors in held:
            vectors.astype(np.float16).tofile(stream)
        os.fsync(stream.fileno())


def write_parquet(path: Path, held: list[Batch]) -> None:
    """One Parquet file with the same columns and the vectors, zstd, flushed; unsorted and unchecked."""
    import pyarrow.parquet as pq

    tables_ = _arrow(held)
    first = next(tables_)
    with path.open("wb") as stream:
        with pq.ParquetWriter(stream, first.schema, compression="zstd") as writer:
            writer.write_table(first)
            for table in tables_:
                writer.write_table(table)
        stream.flush()
        os.fsync(stream.fileno())


def write_lance(path: Path, held: list[Batch]) -> None:
    """LanceDB's writer from a stream of batches; it does not flush to the disk."""
    import lancedb
    import pyarrow as pa

    parts = _arrow(held)
    first = next(parts)

    def stream() -> Iterator[Any]:
        yield from first.to_batches()
        for table in parts:
            yield from table.to_batches()

    lancedb.connect(path).create_table("t", data=pa.RecordBatchReader.from_batches(first.schema, stream()))


def _arrow(held: list[Batch]) -> Iterator[Any]:
    """Batches as Arrow tables: the columns of a segment, made as ours are, and the vector in binary16."""
    import pyarrow as pa

    for segments, vectors in held:
        flat = pa.array(vectors.astype(np.float16).reshape(-1))
        yield tables.from_segments(segments).append_column("vector", pa.FixedSizeListArray.from_arrays(flat, DIM))


WRITERS: dict[str, Callable[[Path, list[Batch]], None]] = {
    "retclip": write_retclip,
    "bytes": write_bytes,
    "parquet": write_parquet,
    "lancedb": write_lance,
}


if __name__ == "__main__":
    main()
