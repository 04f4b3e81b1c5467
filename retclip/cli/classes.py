"""`retclip classes`: what a class list will meet in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import DeviceOption, JsonOption, PresetOption, QuietOption

if TYPE_CHECKING:
    from rich.table import Table

    from retclip.query.gaps import GapReport

app = typer.Typer(no_args_is_help=True, help="Class lists.")


@app.command(epilog="Example: retclip classes check @ade150 --db ade20k")
def check(
    classes: Annotated[
        str, typer.Argument(help="Class list: @coco133, a file, or names separated by commas.", metavar="FILE|LIST")
    ],
    db: Annotated[str, typer.Option(help="Database: name or path, NAME@7 for version 7.")],
    few: Annotated[int, typer.Option(min=1, help="Call a class thin below so many exemplars.")] = 10,
    names_only: Annotated[
        bool, typer.Option("--names-only", help="Compare names; do not load the text tower of the preset.")
    ] = False,
    preset: PresetOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Tell before a run which classes are missing, thin, ambiguous or collide, and what they cost a detector."""
    from retclip.assembly import choose_preset, count_detector_prompts, make_text_tower
    from retclip.query.gaps import vocabulary_gaps
    from retclip.query.matching import match_labels
    from retclip.shards import open_database
    from retclip.vocabularies import load_vocabulary

    speech = Speech(json, quiet)
    database = open_database(db)
    vocabulary = load_vocabulary(classes)
    settings = choose_preset(preset, database)
    text = None if names_only else make_text_tower(settings, device)
    labels = match_labels(vocabulary, database.classes, text, settings.retrieval.label_match)
    report = vocabulary_gaps(vocabulary, database.classes, labels, few, text)
    prompts = count_detector_prompts(settings, vocabulary)
    document = {"database": database.name, "version": database.version, **report.to_json(), "prompts": prompts}
    speech.data(document, _table(report))
    for note in _notes(report, prompts, database.name, classes):
        speech.note(f"note: {note}")


def _table(report: GapReport) -> Table:
    rows = []
    for gap in sorted(report.classes, key=lambda gap: ("missing", "few", "stored").index(gap.state)):
        nearest = f"{gap.nearest[0]} ({gap.nearest[1]:.2f})" if gap.nearest else ""
        rows.append((gap.requested, gap.state, gap.exemplars, ", ".join(gap.stored) or nearest, gap.method))
    return make_table(("class", "state", "exemplars ", "stored as (nearest)", "by"), rows)


def _notes(report: GapReport, prompts: int | None, database: str, classes: str) -> list[str]:
    counts = {state: len(report.having(state)) for state in ("stored", "few", "missing")}
    notes = [f"{counts['stored']} classes are stored, {counts['few']} have few exemplars, {counts['missing']} none"]
    for label, candidates in report.ambiguous:
        notes.append(f"stored '{label}' fits {' and '.join(candidates)}; its segments count as '{candidates[0]}'")
    for name, owners in report.collisions.items():
        notes.append(f"'{name}' belongs to {' and '.join(owners)}")
    if report.punctuated:
        notes.append(f"a detector is asked without the full stops and question marks of {', '.join(report.punctuated)}")
    if prompts is not None:
        notes.append(f"a detector reads the whole list in {prompts} prompts a picture")
    if counts["missing"]:
        command = f'retclip index add-classes --db {database} --classes "{classes}" --fallback DB'
        notes.append(f"{command} teaches the missing ones")
    return notes
