"""Search under a vocabulary, against every peer in the same process: milliseconds and recall.

    pip install -r benchmarks/shards/requirements.txt
    python benchmarks/shards/search.py --rows 100000 --work /tmp/shards --out benchmarks/shards/search_100k.json

Ours, exact and through an index, and a peer take turns, rep by rep, so that a noisy moment hits all. One peer is in
memory at a time. A file that is there already is added to: shares and peers can be measured one after another.
"""

from __future__ import annotations

import os

# Before anything loads OpenBLAS: the one inside faiss's wheel is of 2021 and takes newer processors for old ones.
if "avx512f" in open("/proc/cpuinfo").read():  # noqa: SIM115, PTH123
    os.environ.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")
elif "avx2" in open("/proc/cpuinfo").read():  # noqa: SIM115, PTH123
    os.environ.setdefault("OPENBLAS_CORETYPE", "HASWELL")
os.environ.setdefault("RUST_LOG", "error")  # LanceDB warns at every search

import argparse
import gc
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from corpus import Corpus, Question, Rows, judge
from data import build
from peers import contestants

from retclip.shards import Database
from retclip.shards.search import Request, Searcher, write_indexes
from retclip.shards.search.kernels import fastest_cpu_kernel
from retclip.shards.search.planner import BackendName

K, SHARES, PER_CLASS = 32, (0.01, 0.1, 0.5, 1.0), 4
SLOW_SECONDS = 15.0  # a peer that takes longer for its reps is not asked again
PAUSE = 0.1  # seconds between turns: threads of a BLAS spin on for a while after its product, on cores of the next


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, required=True, help="folder for the database, reused")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--peers", default="", help="only these, by commas: scattered, sorted, ranges, ... or none")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the rows that are asked")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    faiss.cvar.distance_compute_blas_threshold = 1  # below it 1.15 takes a slow path for 100 queries
    args.work.mkdir(parents=True, exist_ok=True)
    database = build(args.work / f"synthetic-{args.rows}.retdb", args.rows)
    begun = time.perf_counter()
    print(write_indexes(database, "none"), f"in {time.perf_counter() - begun:.1f} s", flush=True)
    corpus = Corpus.of(database)
    questions = [Question.draw(corpus, share) for share in args.shares]
    results = [Ours(database, corpus, question).figures(args.reps) for question in questions]
    _keep(args, results)
    for make in contestants(args.rows, args.peers):
        begun = time.perf_counter()
        peer = make(corpus)
        built = time.perf_counter() - begun
        for question, result in zip(questions, results, strict=True):
            for setting in peer.settings:
                row = _duel(Ours(database, corpus, question), peer.prepare(question, setting), args.reps)
                row |= {"peer": peer.name, "setting": setting, "build_seconds": round(built, 1)}
                result["peers"].append(row)
                print(f"  {question.share:4.0%} {peer.name} [{setting}]: {_line(row)}", flush=True)
        del peer
        gc.collect()
        _keep(args, results)


def _keep(args: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Write what is known by now: a long run that ends early loses one peer."""
    if args.out.exists():
        results = merged(json.loads(args.out.read_text())["questions"], results)
    args.out.write_text(json.dumps({"machine": _machine(args), "k": K, "questions": results}, indent=1) + "\n")


class Ours:
    """Our search of one question, by a reader of its own."""

    def __init__(self, database: Database, corpus: Corpus, question: Question) -> None:
        self.corpus, self.question = corpus, question
        self._classes = np.sort(corpus.class_id[question.classes]).tolist()
        self._database, self._searcher = database, Searcher(database.snapshot)

    def ask(self, backend: BackendName, cap: int | None = None, queries: npt.NDArray[np.float32] | None = None) -> Rows:
        """(M, K) places."""
        asked = self.question.queries if queries is None else queries
        request = Request(K, tuple(self._classes), cap, "none")
        return self.corpus.rows_of(self._searcher.search(asked, request, backend))

    def first(self, backend: BackendName) -> float:
        """Seconds of the first search of a vocabulary, by a reader that has nothing in memory yet."""
        fresh = Ours(self._database, self.corpus, self.question)
        return _seconds(lambda: fresh.ask(backend))

    def figures(self, reps: int) -> dict[str, Any]:
        """Our own times: the first search of a vocabulary, later ones, with a limit per class, and the floor."""
        question = self.question
        first, first_indexed = self.first("cpu"), self.first("ivf")
        others = question.others()
        rows, floor = self._floor()
        times = _interleaved(
            {
                "ours": lambda: self.ask("cpu"),
                "ours_per_class": lambda: self.ask("cpu", PER_CLASS),
                "indexed": lambda: self.ask("ivf"),
                "indexed_new_queries": lambda: self.ask("ivf", queries=next(others)),
                "floor": floor,
            },
            reps,
        )
        plan = self._searcher.plan(len(question.queries), Request(K, tuple(self._classes), None, "none"))
        result = {
            "share": question.share,
            "classes": len(self._classes),
            "rows": rows,
            "queries": len(question.queries),
            "first_ms": round(first * 1e3, 2),
            "first_indexed_ms": round(first_indexed * 1e3, 2),
            "plan": [plan.backend, plan.reason, fastest_cpu_kernel().name],
            **{f"{name}_ms": _summary(seconds) for name, seconds in times.items()},
            "per_class_k": PER_CLASS,
            "indexed": judge(self.corpus, question, self.ask("ivf"), self.ask("cpu")),
            "peers": [],
        }
        print(json.dumps(result), flush=True)
        return result

    def _floor(self) -> tuple[int, Callable[[], object]]:
        """Number of asked rows, and their bare product with the queries in the machine's fastest format."""
        ranges = self.corpus.ranges(self.question.classes)
        rows, kernel = np.concatenate([np.arange(r.start, r.stop) for r in ranges]), fastest_cpu_kernel()
        held = [kernel.rounded(self.corpus.vectors[rows[at : at + 65_536]])[0] for at in range(0, len(rows), 65_536)]
        asked, _ = kernel.rounded(self.question.queries)
        out = torch.empty((65_536, len(self.question.queries)))
        return len(rows), lambda: [kernel.product(asked, part, out[: len(part)]) for part in held]


def _duel(ours: Ours, theirs: Callable[[int], Rows], reps: int) -> dict[str, Any]:
    truth, found = ours.ask("cpu"), theirs(K)
    runs = {"ours": lambda: ours.ask("cpu"), "indexed": lambda: ours.ask("ivf"), "theirs": lambda: theirs(K)}
    row: dict[str, Any] = {f"{name}_ms": _summary(seconds) for name, seconds in _interleaved(runs, reps).items()}
    row["ratio_of_medians"] = round(row["theirs_ms"]["median"] / row["ours_ms"]["median"], 2)
    row["ratio_of_minima"] = round(row["theirs_ms"]["min"] / row["ours_ms"]["min"], 2)
    row["ratio_of_medians_indexed"] = round(row["theirs_ms"]["median"] / row["indexed_ms"]["median"], 2)
    return row | judge(ours.corpus, ours.question, found, truth)


def _seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _interleaved(runs: dict[str, Callable[[], Any]], reps: int) -> dict[str, list[float]]:
    """Seconds of each, in turns, after one turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for rep in range(reps + 1):
        for name, run in runs.items():
            time.sleep(PAUSE)
            taken = _seconds(run)
            if rep:
                seconds[name].append(taken)
        if rep and sum(map(sum, seconds.values())) > SLOW_SECONDS:
            break
    return seconds


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Questions of both, by share; of what both measured, the new figures."""
    by_share = {question["share"]: question for question in old}
    for question in new:
        before = by_share.get(question["share"], {"peers": []})["peers"]
        again = {(peer["peer"], peer["setting"]) for peer in question["peers"]}
        kept = [peer for peer in before if (peer["peer"], peer["setting"]) not in again]
        by_share[question["share"]] = question | {"peers": kept + question["peers"]}
    return [by_share[share] for share in sorted(by_share)]


def _summary(seconds: list[float]) -> dict[str, float]:
    return {"median": round(float(np.median(seconds)) * 1e3, 2), "min": round(min(seconds) * 1e3, 2), "n": len(seconds)}


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['theirs_ms']['median']} ms, ours {row['ours_ms']['median']} ms, x{row['ratio_of_medians']}"
        f" (minima x{row['ratio_of_minima']}), indexed {row['indexed_ms']['median']} ms,"
        f" x{row['ratio_of_medians_indexed']}, recall {row['recall']:.3f}"
        f" in {row['recall_in_vocabulary']:.3f} out {row['recall_out_of_vocabulary']:.3f}"
    )


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    processor = Path("/proc/cpuinfo").read_text()
    packages = ("numpy", "torch", "faiss-cpu", "hnswlib", "usearch", "lancedb")
    return {
        "processor": next(line.split(": ")[1] for line in processor.splitlines() if line.startswith("model name")),
        "instructions": [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in processor.split()],
        "threads": args.threads,
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE", "detected"),
        "load_average_at_end": os.getloadavg()[0],
        "rows": args.rows,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    main()
