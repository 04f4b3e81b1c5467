"""`retclip db health | prune | suggest`: what is wrong with the examples, and what is missing."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.db_edit import YesOption, confirm, current_database, done, program, tidied
from retclip.cli.options import JsonOption, NameArgument, QuietOption
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.shards.drift import Drift
    from retclip.shards.health import Disagreement, Duplicate, Health

SampleOption = Annotated[int, typer.Option(min=1, help="Segments of each class that are asked about.")]
_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command(epilog="Example: retclip db health coco --html health.html --queries out/")(health)
    app.command(epilog="Example: retclip db prune coco --disagreeing")(prune)
    app.command(epilog="Example: retclip db suggest coco")(suggest)


def health(
    name: NameArgument,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Folder of results (segments.json) that is compared with the database.")
    ] = None,
    sample: SampleOption = 200,
    json: JsonOption = False,
) -> None:
    """Labels that neighbours contradict, near doubles, thin and confused classes, drift of queries."""
    from retclip.shards import open_database
    from retclip.shards.health import examine
    from retclip.shards.suggestions import suggest as suggestions

    database = open_database(name)
    found = examine(database, sample)
    drift = None if queries is None else _drift(found, database.space.fingerprint, queries)
    if html is not None:
        from retclip.reports.health_page import write_health_page

        write_health_page(html, found, suggestions(found.classes), database.thumbnail)
    Speech(json).data(_document(found, drift), make_table(("", ""), _summary(found, drift)))


def _drift(found: Health, feature_space: str, queries: Path) -> Drift:
    from retclip.reports.distances import nearest_distances
    from retclip.shards.drift import measure_drift

    return measure_drift(nearest_distances(queries, feature_space, found.transform), found.nearest)


def _document(found: Health, drift: Drift | None) -> dict[str, Any]:
    return {
        "database": found.database,
        "segments": found.segments,
        "asked": found.asked,
        "judged": found.judged,
        "transform": found.transform,
        "recall": {"value": found.recall, "exact": found.plan.exact, "backend": found.plan.backend},
        "classes": [
            {**asdict(item), "spread": _known(item.spread), "agreement": _known(item.agreement)}
            for item in found.classes
        ],
        "thin": [item.name for item in found.thin],
        "disagreeing": [_disagreement(found, item) for item in found.disagreeing],
        "duplicates": [_duplicate(found, pair) for pair in found.duplicates],
        "drift": None if drift is None else asdict(drift),
    }


def _known(value: float) -> float | None:
    """JSON has no word for a number that there is not."""
    return value if isfinite(value) else None


def _disagreement(found: Health, item: Disagreement) -> dict[str, Any]:
    neighbours = [
        {**_named(found, segment_id), "label": label, "distance": distance}
        for segment_id, label, distance in item.neighbours
    ]
    return {**asdict(item), **_named(found, item.segment_id), "neighbours": neighbours}


def _duplicate(found: Health, pair: Duplicate) -> dict[str, Any]:
    other = {f"other_{key.removeprefix('segment_')}": value for key, value in _named(found, pair.other_id).items()}
    return {**asdict(pair), **_named(found, pair.segment_id), **other}


def _named(found: Health, segment_id: int) -> dict[str, str]:
    """A segment as users find it again."""
    return {"segment_id": f"{segment_id:016x}", "image": found.pictures[segment_id]}


def _summary(found: Health, drift: Drift | None) -> list[tuple[str, str]]:
    pairs = sorted(
        ((share, item.name, other) for item in found.classes for other, share in item.confused_with.items()),
        reverse=True,
    )
    confused = ", ".join(f"{name} -> {other} {share:.0%}" for share, name, other in pairs[:_SHOWN])
    thin = ", ".join(f"{item.name} {item.segments}" for item in found.thin[:_SHOWN])
    rows = [
        ("database", f"{found.database}: {found.segments:,} segments, {found.asked:,} asked, {found.judged:,} judged"),
        ("recall", f"{found.recall:.3f} ({'exact search' if found.plan.exact else 'measured'}; {found.plan.reason})"),
        ("thin classes", f"{len(found.thin)}: {thin}" if thin else "none"),
        ("contradicted labels", f"{len(found.disagreeing):,} (see them with --html, or: retclip db prune)"),
        ("near doubles", f"{len(found.duplicates):,} pairs in different pictures"),
        ("confused classes", confused or "none"),
    ]
    if drift is not None:
        rows.append(
            (
                "drift",
                f"{drift.far:.0%} of {drift.queries:,} queries are farther than 95 % of the stored segments (expected"
                f" 5 %); median distance {drift.median:.3f}, stored {drift.own_median:.3f}",
            )
        )
    return rows


def prune(
    name: NameArgument,
    disagreeing: Annotated[
        bool, typer.Option("--disagreeing", help="Segments most of whose neighbours carry one other label.")
    ] = False,
    sample: SampleOption = 200,
    yes: YesOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show which segments would be deleted, ask, and delete them; `db undo` takes it back."""
    from retclip.shards.health import examine

    if not disagreeing:
        raise InputError(
            "E120", "Nothing to prune.", why="Expected --disagreeing.", fix=f"retclip db prune {name} --disagreeing"
        )
    database = current_database(name)
    health = examine(database, sample)
    found = health.disagreeing
    speech = Speech(json, quiet)
    for item in () if json else found:
        verdict = f"{item.label}: {item.share:.0%} of its neighbours are '{item.other}'"
        speech.note(f"{item.segment_id:016x}  {verdict}  {health.pictures[item.segment_id]}")
    if found:
        confirm(yes, f"Delete {len(found)} of {len(database):,} segments of '{database.name}'?", speech)
    with database.write("prune", program()) as transaction:
        count = transaction.delete(segment_ids=[item.segment_id for item in found])
        note = f"deleted {count} segments that their neighbours contradict" + tidied(transaction, count)
        result = transaction.commit(note)
    done(speech, result, note, count, deleted=[_disagreement(health, item) for item in found])


def suggest(name: NameArgument, sample: SampleOption = 200, json: JsonOption = False) -> None:
    """Which classes to add exemplars to next, and of what kind; most urgent first."""
    from retclip.shards import open_database
    from retclip.shards.health import examine
    from retclip.shards.suggestions import suggest as suggestions

    found = suggestions(examine(open_database(name), sample).classes)
    rows = [(item.name, f"{item.need:.2f}", "; ".join(item.reasons), "; ".join(item.additions)) for item in found]
    table = make_table(("class", "need ", "because", "add"), rows)
    Speech(json).data([asdict(item) for item in found], table if rows else "No class lacks anything.")
