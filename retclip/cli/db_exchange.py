"""`retclip db export | import`: databases as Parquet files, and inside vector engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech
from retclip.cli.db_edit import done, program
from retclip.cli.options import JsonOption, NameArgument, QuietOption
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.shards import Database

FORMS = ("parquet", "lancedb", "qdrant")


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command("export", epilog="Example: retclip db export coco coco.parquet")(export_database)
    app.command("import", epilog="Example: retclip db import coco.parquet --db coco2")(import_database)


def export_database(
    name: NameArgument,
    target: Annotated[
        str, typer.Argument(help="A new file; or folder or address of an engine, #OTHER for another name.")
    ],
    to: Annotated[str, typer.Option(help="parquet (a file), lancedb or qdrant.")] = "parquet",
    transform: Annotated[
        str | None, typer.Option(help="Key transform applied to an engine's vectors for good; default: the database's.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy the live segments of a version into a Parquet file, or into a vector engine that `--db` can then name."""
    from retclip.shards import TRANSFORMS, open_database

    if to not in FORMS:
        raise InputError("E120", f"Unknown --to '{to}'.", why=f"Known are {', '.join(FORMS)}.", fix="Correct it.")
    if transform is not None and (to == "parquet" or transform not in TRANSFORMS):
        raise InputError(
            "E120",
            f"--transform {transform} cannot be exported to {to}.",
            why=f"Parquet keeps vectors as they are; engines take {', '.join(TRANSFORMS)}.",
            fix="Leave --transform out, or correct it.",
        )
    database = open_database(name)
    count, reference = _export(database, target, to, transform)
    facts = {"database": database.name, "version": database.version, "to": reference, "segments": count}
    Speech(json, quiet).data(facts, f"{database.name}@{database.version}: {count:,} segments -> {reference}")


def _export(database: Database, target: str, to: str, transform: str | None) -> tuple[int, str]:
    """Number of segments, and how the copy is named from now on."""
    if to == "parquet":
        from retclip.shards.parquet_exchange import export_parquet

        return export_parquet(database, Path(target)), target
    from retclip.adapters.vector_engines import export_to_engine

    return export_to_engine(database, to, target, transform), f"{to}:{target}"


def import_database(
    file: Annotated[Path, typer.Argument(help="A Parquet file of `db export`.", metavar="FILE")],
    db: Annotated[str, typer.Option(help="Name or path of the new database.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a database from an exported Parquet file; the content is the same, history and thumbnails do not travel."""
    from retclip.shards import new_database_path
    from retclip.shards.parquet_exchange import import_parquet

    speech = Speech(json, quiet)
    database, same = import_parquet(file, new_database_path(db), program())
    if not same:
        speech.note(f"note: the content is not that of the exported version; {file.name} was changed in between")
    done(speech, database, f"imported from {file.name}", len(database))
