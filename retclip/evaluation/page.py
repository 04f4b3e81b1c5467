"""The evaluation report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retclip.core.files import write_bytes
from retclip.reports.markup import Markup, joined, tag

_STYLE = Markup("""
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem }
:root { color-scheme: light dark }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th, td { padding: .15rem .7rem .15rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums } th { border-bottom: 1px solid gray }
.leak { background: #b00020; color: white; padding: .8rem 1rem; font-weight: 600 }
figure { margin: 0 0 1.2rem } figure img { max-width: 100% } figcaption { font-size: 90% }
""")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Exhibit:
    """One picture of the page: what it shows and its address (`data:`)."""

    caption: str
    address: str


def write_page(path: Path, document: Mapping[str, Any], exhibits: Sequence[Exhibit]) -> Path:
    """Write the report of one run: document as `retclip eval --json` gives it, pictures in the order to show.

    Raises:
        InputError: E131 if the file cannot be written.
    """
    title = f"{document['dataset']['name']} {document['dataset']['split']}: {document['protocol']}"
    body = joined(
        tag("h1", title),
        _warning(document["leakage"]),
        _facts(document),
        _summary(document),
        tag("h2", "Mistaken classes"),
        _table(
            ("true", "predicted", "segments "),
            [(c["true"], c["predicted"], c["count"]) for c in document["confusions"]],
        ),
        tag("h2", "Worst pictures"),
        tag("p", "Photo, truth, prediction."),
        *(tag("figure", tag("img", src=e.address, alt=e.caption), tag("figcaption", e.caption)) for e in exhibits),
        tag("h2", "Every class"),
        _classes(document["per_class"]),
        tag("h2", "Calibration"),
        _table(
            ("segments ", "mean score ", "share right "),
            [(b["count"], f"{b['score']:.2f}", f"{b['accuracy']:.2f}") for b in document["calibration"]],
        ),
    )
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", _STYLE),
    )
    page = joined(Markup("<!doctype html>\n"), tag("html", tag("head", head), tag("body", body), lang="en"))
    return write_bytes(path, page.encode("utf-8", errors="replace"))


def _warning(leakage: Mapping[str, Any]) -> Markup:
    if not leakage["leaks"]:
        return Markup("")
    names = ", ".join(f"{leak['image']} = {leak['stored']} ({leak['reason']})" for leak in leakage["leaks"][:5])
    text = (
        f"LEAK: {len(leakage['leaks'])} of these pictures are in the database: {names}. These figures measure memory."
    )
    return tag("p", text, class_="leak")


def _facts(document: Mapping[str, Any]) -> Markup:
    database, seen = document["database"], document["seen_list"]
    layers = [] if database is None else database.get("layers", [database])
    rows = [
        ("protocol", document["protocol"]),
        ("database", ", ".join(f"{layer['name']}@{layer['version']}" for layer in layers) or "none"),
        ("content hash", ", ".join(layer["content_hash"] for layer in layers)),
        ("preset", document["preset"] or ""),
        ("proposals", document["proposals"]),
        ("seen list", f"{seen['name']}, {seen['size']} of {seen['classes']} classes"),
        ("pictures", document["dataset"]["images"]),
        ("annotations", document["dataset"]["annotations_sha256"]),
    ]
    return tag("table", *(tag("tr", tag("th", name), tag("td", str(value))) for name, value in rows))


def _summary(document: Mapping[str, Any]) -> Markup:
    columns = ("", "PQ ", "SQ ", "RQ ", "mAP ", "mIoU ")
    keys = ("pq", "sq", "rq", "map", "miou")
    groups = [
        ("all", document),
        *((name, document[name]) for name in ("things", "stuff", "seen", "unseen", "harmonic")),
    ]
    rows = [(name, *(_shown(group.get(key)) for key in keys)) for name, group in groups if group]
    bounds = document["intervals"]
    rows.insert(1, ("95 %", _bounds(bounds["pq"]), "", "", "", _bounds(bounds["miou"])))
    extra = (
        f"Expected calibration error {_shown(document['ece'])}, label accuracy {_shown(document['label_accuracy'])}."
    )
    return joined(_table(columns, rows), tag("p", extra))


def _classes(rows: Sequence[Mapping[str, Any]]) -> Markup:
    keys = ("pq", "sq", "rq", "map", "miou", "tp", "fp", "fn")
    columns = ("class", "kind", "seen", *(f"{key} " for key in keys))
    cells = []
    for row in rows:
        kind, seen = "thing" if row["isthing"] else "stuff", "yes" if row["seen"] else "no"
        cells.append((row["name"], kind, seen, *(_shown(row.get(key)) for key in keys)))
    return _table(columns, cells)


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Columns whose name ends in a blank hold numbers."""
    kinds = ["n" if column.endswith(" ") else False for column in columns]
    head = tag("tr", *(tag("th", c.strip(), class_=kind) for c, kind in zip(columns, kinds, strict=True)))
    body = [tag("tr", *(tag("td", str(v), class_=k) for v, k in zip(row, kinds, strict=True))) for row in rows]
    return tag("table", head, *body)


def _shown(value: float | int | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"


def _bounds(pair: Sequence[float | None] | None) -> str:
    return "" if pair is None or None in pair else f"{pair[0]:.1f} .. {pair[1]:.1f}"
