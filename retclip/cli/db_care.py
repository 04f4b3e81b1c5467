"""`retclip db diff | compact | gc | copy | merge | erase`: versions, and databases as a whole."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.db_edit import YesOption, confirm, current_database, done, newest_path, program
from retclip.cli.options import JsonOption, NameArgument, QuietOption
from retclip.core.errors import DatabaseError, InputError

if TYPE_CHECKING:
    from retclip.shards.differences import Difference
    from retclip.shards.retention import Collected


def register(app: typer.Typer) -> None:
    """Add the commands to the `db` group."""
    app.command(epilog="Example: retclip db diff coco@2 coco")(diff)
    app.command(epilog="Example: retclip db compact coco")(compact)
    app.command(epilog="Example: retclip db gc coco --keep 5 --dry-run")(gc)
    app.command(epilog='Example: retclip db copy coco boats --classes "boat, surfboard"')(copy)
    app.command(epilog="Example: retclip db merge mine ade20k --out both")(merge)
    app.command(epilog="Example: retclip db erase coco --image photo.jpg --yes")(erase)


def diff(
    old: Annotated[str, typer.Argument(help="Database, or NAME@VERSION.", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="What to compare it with.", metavar="NEW")],
    json: JsonOption = False,
) -> None:
    """What one version, or database, has that another has not: classes, segments, labels and content."""
    from retclip.shards import open_database
    from retclip.shards.differences import compare

    found = compare(open_database(old), open_database(new))
    changes = [("added", name, count) for name, count in found.added.items()]
    changes += [("removed", name, count) for name, count in found.removed.items()]
    changes += [(f"was '{one}'", two, count) for (one, two), count in sorted(found.relabelled.items())]
    table = make_table(("change", "class", "segments "), changes)
    Speech(json).data(_difference(found), table if changes else _unchanged(found))


def _difference(found: Difference) -> dict[str, object]:
    moves = [{"from": one, "to": two, "segments": n} for (one, two), n in sorted(found.relabelled.items())]
    return {**asdict(found), "relabelled": moves}


def _unchanged(found: Difference) -> str:
    if found.changed:
        return f"The same segments under the same labels; {found.changed} of them differ in vector, mask or box."
    return "The same segments under the same labels." + ("" if found.same_content else " Classes differ in kind.")


def compact(name: NameArgument, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Rewrite shards with many dead rows, and join small ones; what the database holds stays the same."""
    with current_database(name).write("compact", program()) as transaction:
        count = transaction.compact()
        if not count:
            raise DatabaseError(
                "E315",
                f"Database '{name}' has nothing to compact.",
                why="No shard has more than 20 % dead rows, and there are not many small ones.",
                fix="Old versions take space too; give it back with: retclip db gc " + name,
            )
        result = transaction.commit(f"worn shards rewritten: {count}")
    done(Speech(json, quiet), result, f"worn shards rewritten: {count}; old versions keep theirs until db gc", count)


def gc(
    name: NameArgument,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay.")] = 5,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Remove old versions, the files that only they need, and what killed programs left; versions being read stay."""
    from retclip.shards.retention import collect

    speech, path = Speech(json), newest_path(name)
    found = collect(path, keep, dry_run=True)
    if found.bytes and not dry_run:
        confirm(yes, f"{name}: remove {_goes(found)} for good?", speech)
        found = collect(path, keep)
    text = f"{name}: {'would remove' if dry_run else 'removed'} {_goes(found)}"
    if found.in_use:
        text += f"; versions {', '.join(map(str, found.in_use))} are being read and stay"
    speech.data({"dry_run": dry_run, **asdict(found)}, text)


def _goes(found: Collected) -> str:
    left = f" and {len(found.leftovers)} leftovers of killed programs" if found.leftovers else ""
    pictures = f" and {found.thumbnails:,} thumbnails" if found.thumbnails else ""
    return f"{len(found.versions)} versions{left}{pictures} ({found.bytes:,} bytes)"


def copy(
    source: Annotated[str, typer.Argument(help="Database, or NAME@VERSION.", metavar="SOURCE")],
    target: Annotated[str, typer.Argument(help="Name or path of the new database.", metavar="TARGET")],
    classes: Annotated[str | None, typer.Option(help="Only these classes of the database, comma-separated.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy what a version holds, or some of its classes, into a new database without history."""
    from retclip.shards import new_database_path, open_database
    from retclip.shards.copying import copy_database

    labels = [label.strip() for label in (classes or "").split(",") if label.strip()]
    if classes is not None and not labels:
        fix = f"Leave --classes out for all, or see them with: retclip db classes {source}"
        raise InputError("E121", "Class list problem in --classes.", why="It names no class.", fix=fix)
    result = copy_database(open_database(source), new_database_path(target), labels, program())
    done(Speech(json, quiet), result, f"copied from {source}", len(result))


def merge(
    first: Annotated[str, typer.Argument(help="Database that is followed where the two differ.", metavar="FIRST")],
    second: Annotated[str, typer.Argument(help="The other database.", metavar="SECOND")],
    out: Annotated[str, typer.Option("--out", "-o", help="Name or path of the new database.")],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Put two databases of one encoder together; classes that share a name or an alias become one."""
    from retclip.shards import new_database_path, open_database
    from retclip.shards.copying import merge_databases

    merged = merge_databases(open_database(first), open_database(second), new_database_path(out), program())
    speech = Speech(json, quiet)
    for conflict in merged.conflicts:
        speech.note(f"note: {conflict}")
    result = merged.database
    speech.data(
        {
            "database": result.name,
            "version": result.version,
            "segments": len(result),
            "classes": len(result.classes),
            "known": merged.known,
            "conflicts": merged.conflicts,
        },
        f"{result.name}: {len(result):,} segments, {len(result.classes)} classes; {merged.known} were in both",
    )


def erase(
    name: NameArgument,
    image: Annotated[str | None, typer.Option(help="A picture's file, or the SHA-256 of one.")] = None,
    source: Annotated[str | None, typer.Option(help="Everything of a source, e.g. coco.")] = None,
    yes: YesOption = False,
    json: JsonOption = False,
) -> None:
    """Erase an image or a source from all versions and caches, and prove that no file holds it; there is no undo."""
    from retclip.shards.erasure import Selection, survey
    from retclip.shards.erasure import erase as erase_selection

    speech, path = Speech(json), newest_path(name)
    if (image is None) == (source is None):
        raise InputError(
            "E120",
            "Nothing to erase." if image is None else "Two things to erase.",
            why="Expected one of --image and --source.",
            fix=f"retclip db erase {name} --image photo.jpg",
        )
    selection = Selection("source", source) if source is not None else Selection("image_sha256", _digest(str(image)))
    if not yes:
        segments, versions = survey(path, selection)
        goes = f"{segments:,} segments, with versions {', '.join(map(str, versions)) or 'none'}"
        confirm(yes, f"Erase {selection.column} '{selection.value}' from '{name}' for good ({goes})?", speech)
    proof = erase_selection(path, selection, program())
    rows = [
        ("segments erased", f"{proof.segments:,} of {proof.images:,} images"),
        ("versions removed", ", ".join(map(str, proof.versions)) or "none"),
        ("thumbnails, spilled units removed", f"{proof.thumbnails:,}, {proof.spills:,}"),
        ("looked for", f"{proof.strings:,} segment ids, image digests and vectors"),
        ("left out, other segments have them too", f"{proof.shared:,}"),
        ("searched", f"{proof.files:,} files, {proof.bytes:,} bytes"),
        ("found", "nothing"),
    ]
    speech.data({**asdict(proof), "found": 0}, make_table(("", ""), rows, f"Proof of erasure, {name}"))


def _digest(image: str) -> str:
    """SHA-256 of a picture's file, or the digest that was given."""
    from retclip.shards.durable import file_sha256

    if re.fullmatch(r"[0-9a-fA-F]{64}", image):
        return image.lower()
    try:
        return file_sha256(Path(image))
    except OSError as error:
        raise InputError(
            "E111", f"{image} cannot be read.", why=str(error), fix="Give a file, or 64 digits."
        ) from error
