"""Every byte of every file of a small database is changed in turn, and `verify --deep` must name the file.

    python benchmarks/shards/corruption.py --out benchmarks/shards/corruption.json

The tests do the same with every eleventh byte of the larger files. One bit of each byte is changed, another one from
byte to byte. Spills of an unfinished build are no part of a version: a changed one must count as absent. The thumbnail
cache has a test of its own (tests/shards/test_media.py), because its free pages may change without notice.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from workload import SPACE, rows

from retclip.shards import Database, Ledger, verify
from retclip.shards.search import write_indexes

ROWS, DIM = 12, 8


def make(path: Path) -> Ledger:
    """A database of two versions with a bitmap of deleted rows and a search index, and a ledger with one unit."""
    segments, vectors = rows(1, ROWS)
    with Database.create(path, replace(SPACE, dim=DIM), {}).write("build", "benchmark") as transaction:
        transaction.add(segments, vectors[:, :DIM])
        database = transaction.commit()
    with database.write("delete", "benchmark") as transaction:
        transaction.delete(segment_ids=[segments[0].segment_id])
        write_indexes(transaction.commit(), "none")
    ledger = Ledger(path, "corruption")
    ledger.put("unit", segments, vectors[:, :DIM], {})
    return ledger


def kind_of(relative: Path) -> str:
    """What a file is, without the random part of its name."""
    return relative.name if relative.parts[0] == "shards" else relative.parts[0]


def found_of(file: Path, found: Callable[[], bool]) -> tuple[int, int]:
    """Bytes of a file, and how many of their changes were found; the file is whole again afterwards."""
    whole = file.read_bytes()
    hits = 0
    for place, byte in enumerate(whole):
        file.write_bytes(whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :])
        hits += found()
    file.write_bytes(whole)
    return len(whole), hits


def main() -> None:
    """Change, count, print and write; ends with 1 if a change was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    changed, named = Counter[str](), Counter[str]()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "small.retdb"
        ledger = make(path)
        for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != "LOCK"):
            relative = file.relative_to(path)

            def is_named(name: str = str(relative)) -> bool:
                return name in {problem.file for problem in verify(path, deep=True).problems}

            is_spill = relative.parts[0] == "jobs"
            total, hits = found_of(file, (lambda: not ledger.has("unit")) if is_spill else is_named)
            changed[kind_of(relative)] += total
            named[kind_of(relative)] += hits
        assert verify(path, deep=True).ok
        assert ledger.has("unit")
    result = {kind: {"bytes": changed[kind], "found": named[kind]} for kind in changed}
    print(json.dumps(result, indent=1))
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    if changed != named:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
