"""Kill -9 at random moments of every operation; then open, verify everything, and run the operation to its end.

python benchmarks/shards/kill.py [--kills 200] [--seed 0] [--out benchmarks/shards/kill.json]

A twin database does the same steps undisturbed; contents must agree after every step. Processes are forked from this
one, which has loaded its libraries and started no thread, so a kill lands in the operation and not in an import.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a thread would not survive fork
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.shards.workload import OPERATIONS, SPACE
from retclip.shards import Database, verify
from retclip.shards.manifest import versions

KILLS_A_STEP = 3


@dataclass
class Tally:
    """Kills of one operation: how many hit it while it ran, and what was found behind them."""

    kills: int = 0
    too_late: int = 0
    kept_old: int = 0
    has_new: int = 0
    left_staging: int = 0


def main() -> int:
    """Print a table and write it as JSON; exit code 1 when anything was lost."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, default=Path(__file__).with_name("kill.json"))
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tallies = run(Path(folder), given.kills, np.random.default_rng(given.seed))
    heads = ("killed", "too late", "old version", "new version", "left staging")
    print(f"{'operation':10}" + "".join(f"{head:>14}" for head in heads))
    for name, tally in tallies.items():
        print(f"{name:10}" + "".join(f"{value:14}" for value in asdict(tally).values()))
    print(f"{sum(tally.kills for tally in tallies.values())} kills, nothing lost, every database whole and resumed")
    operations = {name: asdict(tally) for name, tally in tallies.items()}
    record = {"seed": given.seed, "python": platform.python_version(), "operations": operations}
    given.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0


def run(folder: Path, kills: int, chance: np.random.Generator) -> dict[str, Tally]:
    """Kill operations in turn until `kills` kills have hit a running one; AssertionError when anything is lost."""
    torn, calm = folder / "torn.retdb", folder / "calm.retdb"
    for path in (torn, calm):
        _in_child(Database.create, path, SPACE, {})
    tallies = {name: Tally() for name in OPERATIONS}
    step = 0
    while sum(tally.kills for tally in tallies.values()) < kills:
        for name, operation in OPERATIONS.items():
            step += name in ("build", "add", "delete")
            before = _in_child(_content, torn)
            started = time.perf_counter()
            _in_child(operation, calm, step)
            seconds = time.perf_counter() - started
            expected = _in_child(_content, calm)
            tally = tallies[name]
            for delay in chance.uniform(0, seconds, KILLS_A_STEP).tolist():  # a resumed operation is killed too
                _kill(delay, tally, operation, torn, step)
                found = _in_child(_content, torn)
                assert found in (before, expected), f"{name}: content is neither the old nor the new one"
                tally.kept_old += found == before
                tally.has_new += found != before
                tally.left_staging += any(torn.rglob(".staging-*"))
            _in_child(operation, torn, step)
            assert _in_child(_content, torn) == expected, f"{name}: the resumed operation ends elsewhere"
    return tallies


def _kill(seconds: float, tally: Tally, work: Callable[..., object], *arguments: object) -> None:
    """Run in a child and kill it after some time."""
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    tally.kills += os.WIFSIGNALED(status)
    tally.too_late += not os.WIFSIGNALED(status)


def _content(path: Path) -> str:
    """Content hash of the newest version; every version that is there must be whole."""
    database = Database.open(path)
    for version in versions(path):
        report = verify(path, version, deep=version == database.version)
        assert report.ok, report.problems
    return database.content_hash()


def _in_child(work: Callable[..., object], *arguments: object) -> str:
    """What `work` returns, as text, from a child: this process never starts the threads of the libraries."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writer, str(work(*arguments)).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read().decode()
    assert os.waitpid(child, 0)[1] == 0, "the child failed"
    return text


if __name__ == "__main__":
    sys.exit(main())
