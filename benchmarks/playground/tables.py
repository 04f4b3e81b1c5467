"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.playground.intervals import RESAMPLES
from benchmarks.playground.trials import REFERENCES
from benchmarks.playground.world import GROUPS, HALVES

TITLES = {
    "databases": "1. A database beside FC-CLIP",
    "scores": "2. No training: Grounding DINO and SAM propose",
    "proposals": "3. Where the masks come from (no training, both scores, database of domain A)",
    "sweep": "4. Alpha, beta, gamma (FC-CLIP's proposals, database of domain A)",
    "chosen": "5. Alpha, beta and gamma chosen on the other seeds (FC-CLIP's proposals)",
    "options": "6. Beyond the paper: every class is stored (FC-CLIP's proposals, database of domain A)",
    "absent": "7. Beyond the paper: half of the classes are not stored",
}
_METRICS = {"pq": "PQ", "map": "mAP", "miou": "mIoU"}
_SHARES = ("all", "things", "stuff", "seen", "unseen")


def markdown(results: Mapping[str, Any]) -> str:
    """All tables, then whether the paper's order holds."""
    run = results["run"]
    lines = [
        "# The playground, measured",
        "",
        f"    {run['command']}",
        "",
        f"{run['seeds']} seeds; {run['scenes']} scenes teach a database, {run['pictures']} pictures of domain A ask. "
        f"Percent, mean over seeds; [brackets]: Student's 95 % interval over seeds. Differences of "
        f"PQ are on the same pictures, [brackets]: 95 % of {RESAMPLES:,} resamples of the pictures within every seed.",
        "",
    ]
    for name, title in TITLES.items():
        layout = _HALVES if name == "absent" else _SCORES
        lines += [f"## {title}", "", *layout.table(results["tables"][name], REFERENCES[name]), ""]
    lines += ["## 8. The networks one by one", "", *_networks(results["networks"]), ""]
    lines += ["## Does the paper's order hold here?", "", *_verdicts(results["claims"])]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Layout:
    """Columns of a table: heading -> path inside a row; groups of classes whose differences are shown."""

    columns: Mapping[str, tuple[str, ...]]
    compared: tuple[str, ...]

    def table(self, rows: Mapping[str, Any], reference: str) -> list[str]:
        """One line a row, compared with the reference row."""
        header = ["", *self.columns, *(f"difference, {group}" for group in self.compared)]
        lines = []
        for label, row in rows.items():
            cells = [figure(_at(row, path), with_interval=name.startswith("PQ")) for name, path in self.columns.items()]
            differences = [
                "" if label == reference else figure(row["pq_difference"][group], with_interval=True, signed=True)
                for group in self.compared
            ]
            lines.append([label, *cells, *differences])
        return grid(header, lines)


_SCORES = _Layout(
    {f"{label} {group}": ("figures", metric, group) for metric, label in _METRICS.items() for group in GROUPS},
    ("all", "unseen"),
)
_HALVES = _Layout(
    {f"PQ {name}": ("pq_of_halves", name) for name in (*HALVES, "harmonic")},
    tuple(HALVES),
)


def _at(row: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, float | None]:
    found: Any = row
    for key in path:
        found = found[key]
    return cast(Mapping[str, float | None], found)


def _networks(rows: Mapping[str, Any]) -> list[str]:
    table = [
        [name, *(figure(row[group], with_interval=False) if group in row else "" for group in _SHARES)]
        for name, row in rows.items()
    ]
    return grid(["percent", *_SHARES], table)


def _verdicts(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["Differences of PQ between two rows, as above. Yes and no: the whole interval agrees.", ""]
    table = []
    for claim in claims:
        difference = claim["difference"]
        asked = f"PQ {claim['group']}" + (f", more than {claim['margin']:g}" if claim["margin"] else "")
        seeds = ", ".join(f"{value:+.1f}" for value in difference["seeds"])
        table.append([claim["text"], asked, claim["holds"], figure(difference, with_interval=True, signed=True), seeds])
    return [*lines, *grid(["finding", "figure", "holds", "difference", "seed by seed"], table)]


def figure(value: Mapping[str, float | None], *, with_interval: bool, signed: bool = False) -> str:
    """`31.4 [29.0, 33.8]`; bounds are left out where one seed gives none."""
    sign = "+" if signed else ""
    mean, low, high = value["mean"], value["low"], value["high"]
    if mean is None:
        return "-"
    bounds = f" [{low:{sign}.1f}, {high:{sign}.1f}]" if with_interval and low is not None and high is not None else ""
    return f"{mean:{sign}.1f}{bounds}"


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of cells."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
