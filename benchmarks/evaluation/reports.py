"""Full reports on real photos: annotated and weight-free proposals, every oracle, with 95 % intervals.

    python benchmarks/evaluation/reports.py --root $RETCLIP_TEST_DATA/coco_panoptic --home DIR --json reports.json

Train photos are the database, val photos the queries. The database is built when `--home` has none. Networks look at
every photo once per kind of proposals; oracles reuse what they said.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from retclip.cli.main import main as retclip

PRESET = Path(__file__).parents[1] / "photo" / "preset.toml"
DATABASE = "photo"
RUNS = {
    "given": ("given", ""),
    "given, vocabulary known": ("given", "vocabulary"),
    "regions": ("regions", ""),
    "regions, vocabulary known": ("regions", "vocabulary"),
    "regions, labels perfect": ("regions", "labels"),
    "regions, best proposals": ("regions", "selection"),
    "regions, best proposals and labels": ("regions", "labels,selection"),
}
KEYS = ("pq", "sq", "rq", "map", "miou", "label_accuracy", "ece")


def build(root: Path, home: Path) -> None:
    """Make the database unless it is there."""
    os.environ["RETCLIP_HOME"] = str(home)
    if not (home / "db" / f"{DATABASE}.retdb").is_dir():
        run(["index", "build", "--source", "coco", "--root", str(root), "--use-masks", "--db", DATABASE,
             "--preset", str(PRESET), "--quiet"])  # fmt: skip


def run(words: list[str]) -> None:
    """One command line; stops the benchmark when it fails."""
    code = retclip(words)
    if code:
        raise SystemExit(code)


def report(root: Path, out: Path, proposals: str, oracle: str, *more: str) -> dict:
    """The JSON report of one evaluation."""
    words = ["eval", "--dataset", "coco-panoptic", "--root", str(root), "--db", DATABASE, "--preset", str(PRESET),
             "--proposals", proposals, "--out", str(out), "--quiet", *more]  # fmt: skip
    run([*words, "--oracle", oracle] if oracle else words)
    return json.loads((out / "report.json").read_text())


def main() -> None:
    """Run every report and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="COCO panoptic folder")
    parser.add_argument("--home", type=Path, required=True, help="folder for the database and the reports")
    parser.add_argument("--json", type=Path, help="write all reports here")
    options = parser.parse_args()
    build(options.root, options.home)
    reports = {}
    for name, (proposals, oracle) in RUNS.items():
        reports[name] = report(options.root, options.home / "reports" / proposals, proposals, oracle)
    print("\n" + " " * 36 + "".join(f"{key:>9}"[:9] for key in KEYS) + "   PQ 95 %")
    for name, found in reports.items():
        cells = "".join(f"{found[key]:9.2f}" if found[key] is not None else "        -" for key in KEYS)
        low, high = found["intervals"]["pq"]
        print(f"{name:<36}{cells}   {low:.1f} .. {high:.1f}   ({found['protocol']})")
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
