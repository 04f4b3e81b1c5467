"""`retclip db index | plan`: how a database is searched."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.db_edit import current_database, refuse_unknown_transform
from retclip.cli.options import ClassesOption, JsonOption, NameArgument, QuietOption
from retclip.core.errors import DatabaseError

if TYPE_CHECKING:
    from retclip.shards import Database


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command(epilog="Example: retclip db index openimages")(index)
    app.command(epilog="Example: retclip db plan openimages --classes @ade150 -k 32")(plan)


def index(
    name: NameArgument,
    transform: Annotated[
        str | None, typer.Option(help="Key transform of the searches to come; default: that of the database.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Give every shard an index (FAISS): searches over many rows are then several times faster, and nearly exact.

    What searches find with it is measured at the end, and an index that finds too little is not kept.
    """
    from retclip.shards.search import write_indexes

    speech = Speech(json, quiet)
    if transform is not None:
        refuse_unknown_transform(transform)
    database = current_database(name)
    done = write_indexes(database, transform)
    inside, outside = done.recall
    document = {"database": database.name, "version": database.version, "indexed_shards": done.shards}
    document |= {"recall": {"asked_classes": inside, "other_classes": outside}, "kept": done.kept}
    told = (
        f"{done.shards} of {len(database.snapshot.shards)} shards of {database.name}@{database.version} got an index."
    )
    told += f"\nOf the true neighbours of a sample searches find {inside:.4f} for segments of asked classes"
    told += "." if outside is None else f", {outside:.4f} for segments of others."
    if not done.kept:
        told += "\nThat is too little: the indexes were removed, and searches stay exact."
    speech.data(document, told)
    speech.note(f"note: retclip db plan {name} tells whether searches use it")


def plan(
    name: NameArgument,
    classes: ClassesOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours per region.")] = 32,
    queries: Annotated[int, typer.Option(min=1, help="Regions of a picture.")] = 100,
    per_class_k: Annotated[int | None, typer.Option(min=1, help="At most so many neighbours of one class.")] = None,
    json: JsonOption = False,
) -> None:
    """Tell how a question would be answered: by which backend, why, over how many rows, and whether that is exact."""
    from retclip.shards import open_database

    database, speech = open_database(name), Speech(json)
    asked = None if classes is None else _stored(database, classes, speech)
    found = database.plan(queries, k, asked, per_class_k)
    document = {"database": database.name, "version": database.version, **asdict(found)}
    rows = [(key, "not measured" if value is None else str(value)) for key, value in document.items()]
    speech.data(document, make_table(("plan", "value"), rows))


def _stored(database: Database, classes: str, speech: Speech) -> list[int]:
    """Ids of the asked classes that a database has; a note tells of others. Raises DatabaseError E309 for none."""
    from retclip.query.matching import match_labels
    from retclip.vocabularies import load_vocabulary

    labels = match_labels(load_vocabulary(classes), database.classes)
    missing = ", ".join(match.requested for match in labels.matches if match.method == "none")
    if not labels.column:
        raise DatabaseError(
            "E309",
            f"Database '{database.name}' has none of the asked classes.",
            why=f"Asked were {missing}.",
            fix=f"See what it has with: retclip db classes {database.name}",
        )
    if missing:
        speech.note(f"note: not stored: {missing}")
    return sorted(labels.column)
