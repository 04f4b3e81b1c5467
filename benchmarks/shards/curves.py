"""Cost against rows and against the kept share, drawn from the files that `search.py` wrote on one machine.

    pip install -r benchmarks/shards/requirements.txt
    cd benchmarks/shards && python curves.py search_{100k,300k,1m_avx2}.json --out curves.png

Both axes are logarithmic: a straight line of slope one costs in proportion to what is asked.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

LEAST_RECALL = 0.98  # in either group of queries; what finds less is no peer
SHARE_OF_FIRST_PANEL = 0.1


class Point(NamedTuple):
    """Median milliseconds of one way to search, for 100 queries."""

    name: str
    rows: int
    share: float
    milliseconds: float


def points(files: list[Path]) -> Iterator[Point]:
    """Every measured point; of a peer with several settings the quickest that finds enough."""
    for file in files:
        found = json.loads(file.read_text())
        for question in found["questions"]:
            rows, share = found["machine"]["rows"], question["share"]
            yield Point("retclip", rows, share, question["ours_ms"]["median"])
            if "indexed" in question and finds_enough(question["indexed"]):
                yield Point("retclip, indexed", rows, share, question["indexed_ms"]["median"])
            yield Point("retclip, four of a class", rows, share, question["ours_per_class_ms"]["median"])
            yield Point("bare product of the asked rows", rows, share, question["floor_ms"]["median"])
            best: dict[str, float] = {}
            for peer in filter(finds_enough, question["peers"]):
                name, milliseconds = peer["peer"], peer["theirs_ms"]["median"]
                best[name] = min(milliseconds, best.get(name, milliseconds))
            yield from (Point(name, rows, share, milliseconds) for name, milliseconds in best.items())


def finds_enough(peer: dict[str, Any]) -> bool:
    """Whether recall is high for queries of asked classes and, where there are any, of others."""
    groups = (peer["recall_in_vocabulary"], peer["recall_out_of_vocabulary"])
    return all(recall is None or recall != recall or recall >= LEAST_RECALL for recall in groups)


def draw(found: list[Point], out: Path) -> None:
    """Two panels: rows at one share, shares at the most rows."""
    most = max(point.rows for point in found)
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.2), sharey=True)
    panels = (
        (left, [p for p in found if p.share == SHARE_OF_FIRST_PANEL], "rows", "rows in the database, a tenth asked"),
        (right, [p for p in found if p.rows == most], "share", f"share of {most:,} rows that is asked"),
    )
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(point.name for point in found))}
    for axes, chosen, along, title in panels:
        lines: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for point in chosen:
            lines[point.name].append((getattr(point, along), point.milliseconds))
        for name, line in lines.items():
            ours, floor = name.startswith("retclip"), name.startswith("bare")
            style = "--" if floor else "-"
            axes.plot(*zip(*sorted(line), strict=True), style, color=colours[name], marker="o", markersize=4,
                      linewidth=2.6 if ours else 1.3, label=name)  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel=title)
        axes.grid(True, which="both", alpha=0.25)
    left.set_ylabel("milliseconds for 100 queries, k = 32 (median)")
    named = {
        label: line for axes in (left, right) for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    right.legend(named.values(), named, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9)
    figure.tight_layout()
    figure.savefig(out, dpi=110)


def main() -> None:
    """Read and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    draw(list(points(options.files)), options.out)


if __name__ == "__main__":
    main()
