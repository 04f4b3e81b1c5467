"""`retclip db delete | relabel | undo`: corrections, each a new version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech
from retclip.cli.options import JsonOption, NameArgument, QuietOption
from retclip.core.errors import DatabaseError, InputError, require

if TYPE_CHECKING:
    from retclip.shards import Database
    from retclip.shards.transaction import Transaction

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command(epilog="Example: retclip db delete coco --label zebra --yes")(delete)
    app.command(epilog="Example: retclip db relabel coco couch sofa")(relabel)
    app.command(epilog="Example: retclip db undo coco")(undo)
    app.command(epilog="Example: retclip db restore coco 3")(restore)
    app.command(epilog="Example: retclip db transform coco whiten")(transform)


def delete(
    name: NameArgument,
    label: Annotated[list[str] | None, typer.Option(help="A class with all its segments; may be repeated.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File with segment ids (hexadecimal, one a line).")] = None,
    source: Annotated[str | None, typer.Option(help="All segments of a source, e.g. coco.")] = None,
    yes: YesOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete what any of the options names; the version before stays readable, and `db undo` takes it back."""
    speech, database = Speech(json, quiet), current_database(name)
    if not (label or ids or source):
        raise InputError(
            "E120",
            "Nothing to delete.",
            why="Expected --label, --ids or --source.",
            fix=f"retclip db delete {name} --label CLASS",
        )
    with database.write("delete", program()) as transaction:
        count = transaction.delete(labels=label or (), segment_ids=read_ids(ids) if ids else (), source=source)
        if not count and not label:
            raise _nothing_named(database, ids, source)
        confirm(yes, f"Delete {count} of {len(database)} segments of '{database.name}'?", speech)
        note = f"deleted {count} segments" + tidied(transaction, count)
        result = transaction.commit(note)
    done(speech, result, note, count)


def relabel(
    name: NameArgument,
    old: Annotated[str, typer.Argument(help="Class to rename, or to merge into NEW if that exists.")],
    new: Annotated[str, typer.Argument(help="The new name.")],
    ids: Annotated[Path | None, typer.Option(help="Only the segments of OLD named in this file.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rename a class, merge it into another, or move single segments to another class."""
    database = current_database(name)
    if not new.strip():
        raise InputError("E120", "The new name is empty.", why=f"'{old}' needs a name.", fix="Give one.")
    with database.write("relabel", program()) as transaction:
        if ids is None:
            count = transaction.relabel(old, new)
        else:
            named = _ids_of_class(database, old, read_ids(ids))
            if not named:
                raise _nothing_named(database, ids, None, f" of '{old}'")
            count = transaction.relabel_segments(named, new)
        tidy = tidied(transaction, count)
        result = transaction.commit(f"{old} -> {new}, {count} segments{tidy}")
    text = f"{count} segments of '{old}' are now '{new}'{tidy}"
    if result.version == database.version:
        text = f"no segment of '{old}' had to become '{new}', nothing changed"
    done(Speech(json, quiet), result, text, count)


def undo(name: NameArgument, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Take the last change back; that is a new version too, so a second undo brings the change back."""
    result = current_database(name).undo()
    done(Speech(json, quiet), result, "took the last change back")


def restore(
    name: NameArgument,
    version: Annotated[int, typer.Argument(help="Version whose content becomes the newest.", min=1)],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go back to any version: its content becomes a new version, and those in between stay readable."""
    result = current_database(name).restore(version)
    done(Speech(json, quiet), result, f"version {version} again")


def transform(
    name: NameArgument,
    kind: Annotated[str, typer.Argument(help="none, centre, standardise or whiten.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Set the key transform of searches; nothing is rewritten, vectors on disk stay as they are."""
    refuse_unknown_transform(kind)
    with current_database(name).write("transform", program()) as transaction:
        transaction.set_transform(kind)
        result = transaction.commit(f"key transform {kind}")
    done(Speech(json, quiet), result, f"key transform {kind}", len(result))


def refuse_unknown_transform(kind: str) -> None:
    """Raise InputError E120 for a key transform that there is not."""
    from retclip.shards import TRANSFORMS

    if kind not in TRANSFORMS:
        raise InputError(
            "E120", f"Unknown key transform '{kind}'.", why=f"Known are {', '.join(TRANSFORMS)}.", fix="Choose one."
        )


def newest_path(name: str) -> Path:
    """Folder of a database that is to be changed. Raises InputError E120 for NAME@VERSION."""
    from retclip.shards import locate_database

    path, version = locate_database(name)
    if version is not None:
        raise InputError(
            "E120",
            f"'{name}' is an old version.",
            why="Only the newest version can be changed.",
            fix=f"Leave out the version: {name.rpartition('@')[0]}",
        )
    return path


def current_database(name: str) -> Database:
    """The newest version of a database, to be changed. Raises InputError E120 for NAME@VERSION."""
    from retclip.shards import Database

    return Database.open(newest_path(name))


def tidied(transaction: Transaction, changed: int) -> str:
    """Rewrite worn shards together with a change; what to add to its note."""
    from retclip.shards.compaction import told

    return told(transaction.compact()) if changed else ""


def program() -> str:
    """What writes, for the manifest."""
    from retclip import __version__

    return f"retclip {__version__}"


def read_ids(path: Path) -> list[int]:
    """Segment ids of a file, one hexadecimal number a line. Raises InputError E124."""
    try:
        ids = [int(word, 16) for word in path.read_text(encoding="utf-8").split()]
        require(bool(ids), "list", "a segment id at least", "an empty file")
        require(all(0 <= number < 1 << 64 for number in ids), "segment id", "at most 16 hexadecimal digits", "another")
        return ids
    except (OSError, ValueError) as error:
        raise InputError(
            "E124",
            f"{path} is not a list of segment ids.",
            why=str(error),
            fix="One hexadecimal id a line, as segments.json and db search show them.",
        ) from error


def _nothing_named(database: Database, ids: Path | None, source: str | None, of_class: str = "") -> DatabaseError:
    """The error of a correction that would change nothing."""
    reasons = [] if ids is None else [f"{ids} names no live segment{of_class}."]
    if source is not None:
        reasons.append(f"There is no source '{source}'; there are: {', '.join(database.sources) or 'none'}.")
    return DatabaseError(
        "E317",
        f"Database '{database.name}' holds nothing of what was named.",
        why="\n".join(reasons),
        fix=f"Ids are shown by: retclip db search {database.name} --image PHOTO; sources by: retclip db info"
        f" {database.name}",
    )


def _ids_of_class(database: Database, label: str, ids: list[int]) -> list[int]:
    wanted = {item.id for item in database.classes if label in (item.name, *item.aliases)}
    if not wanted:
        raise DatabaseError(
            "E309", f"Database '{database.name}' has no class '{label}'.", fix=f"retclip db classes {database.name}"
        )
    asked = set(ids)
    return [
        segment.segment_id for _, _, segment in database.iter_segments(sorted(wanted)) if segment.segment_id in asked
    ]


def confirm(yes: bool, question: str, speech: Speech) -> None:
    """Ask on stderr unless `yes`; anything but y ends the command with exit code 1.

    Raises:
        InputError: E120 under --json without `yes`: a program reads along, and nobody is there to answer.
    """
    if yes:
        return
    if speech.json:
        raise InputError("E120", "Nothing was done.", why=f"Under --json nobody is asked: {question}", fix="Add --yes.")
    if not typer.confirm(question, err=True):
        raise typer.Abort


def done(speech: Speech, database: Database, text: str, changed: int | None = None, **more: Any) -> None:
    """Say what a change did, and which version has it; `changed` is for what was counted, `more` for JSON."""
    counted = {} if changed is None else {"changed": changed}
    facts = {"database": database.name, "version": database.version, **counted, "segments": len(database), **more}
    speech.data(facts, f"{database.name}: {text}; version {database.version}, {len(database):,} segments")
