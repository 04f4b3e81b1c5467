"""`retclip db`: look into databases, correct them, and take corrections back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import DeviceOption, JsonOption, QuietOption
from retclip.core.errors import DatabaseError, InputError, ModelError

if TYPE_CHECKING:
    from retclip.shards import Database, StoredClass

app = typer.Typer(no_args_is_help=True, help="Look into databases, correct them, and take corrections back.")

NameArgument = Annotated[str, typer.Argument(help="Name or path, NAME@7 for version 7.", metavar="NAME")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("list", epilog="Example: retclip db list")
def list_all(json: JsonOption = False) -> None:
    """Databases in $RETCLIP_HOME/db."""
    from retclip.shards import Database, list_databases

    rows: list[dict[str, Any]] = []
    for path in list_databases():
        try:
            database = Database.open(path)
            rows.append({"name": database.name, "version": database.version, "segments": len(database),
                         "classes": len(database.classes), "encoder": database.space.encoder, "state": "ok"})
        except DatabaseError as error:
            rows.append({"name": path.stem, "version": None, "segments": None, "classes": None, "encoder": None,
                         "state": f"{error.code} {error.what}"})
    table = make_table(("name", "version ", "segments ", "classes ", "encoder", "state"), [list(row.values()) for row in rows])
    Speech(json).data(rows, table if rows else "No databases yet. Make one: retclip index build --help")


@app.command(epilog="Example: retclip db info coco@2 --json")
def info(name: NameArgument, json: JsonOption = False) -> None:
    """What a database holds, how it was made, and which classes are thin."""
    from retclip.shards import open_database

    database = open_database(name)
    facts = _facts(database)
    thin = sorted(database.classes, key=lambda item: (item.count, item.name))[:5]
    rows = [
        ("database", f"{facts['name']} version {facts['version']} ({facts['created']})"),
        ("segments", f"{facts['segments']:,}"), ("classes", facts["classes"]), ("images", f"{facts['images']:,}"),
        ("encoder", f"{database.space.encoder}, {database.space.dim}-d, stride {database.space.stride}"),
        ("layers", ", ".join(database.space.layers)),
        ("feature space", facts["feature_space"]["fingerprint"]), ("weights sha256", database.space.weights_sha256),
        ("key transform", facts["key_transform"]), ("sources", _counts(facts["sources"])), ("licences", _counts(facts["licenses"])),
        ("thinnest classes", ", ".join(f"{item.name} {item.count}" for item in thin) or "-"),
        ("interrupted builds", ", ".join(facts["unfinished"]) or "none"),
    ]
    Speech(json).data(facts, make_table(("", ""), rows))


def _facts(database: Database) -> dict[str, Any]:
    jobs = sorted(folder.name for folder in (database.path / "jobs").iterdir() if folder.is_dir() and any(folder.iterdir()))
    return {
        "name": database.name, "path": str(database.path), "version": database.version, "created": database.created,
        "segments": len(database), "classes": len(database.classes), "images": database.image_count,
        "feature_space": {"fingerprint": database.space.fingerprint, **database.space.to_json()},
        "key_transform": database.transform, "content_hash": database.content_hash(), "sources": dict(database.sources),
        "licenses": dict(database.licenses), "preset": dict(database.preset), "unfinished": jobs,
        "history": [asdict(entry) for entry in database.history()],
    }


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{key or 'unknown'} {count:,}" for key, count in values.items()) or "-"


@app.command(epilog="Example: retclip db verify coco --deep")
def verify(
    name: NameArgument, deep: Annotated[bool, typer.Option("--deep", help="Read and check every byte.")] = False, json: JsonOption = False
) -> None:
    """Check that a database is whole; exit code 5 when it is not."""
    from retclip.shards import locate_database
    from retclip.shards import verify as verify_database

    path, version = locate_database(name)
    report = verify_database(path, version, deep)
    rows = [(problem.code, problem.file, problem.message) for problem in report.problems]
    head = f"{name}: version {report.version}, {report.segments:,} segments, {len(report.checked)} files checked"
    head += f", content hash {report.content_hash}" if report.content_hash else ""
    speech = Speech(json)
    speech.data({"ok": report.ok, **asdict(report)}, head + ("" if rows else " - whole"))
    if rows:
        speech.data(None, make_table(("code", "file", "problem"), rows)) if not json else None
        raise DatabaseError("E303", f"Database '{name}' is damaged: {len(rows)} problems.", why=f"{rows[0][1]}: {rows[0][2]}",
                            fix="Restore the named files from a copy, or use an older version: NAME@VERSION.")


@app.command(epilog="Example: retclip db classes coco --missing-for @coco133")
def classes(
    name: NameArgument,
    missing_for: Annotated[str | None, typer.Option(help="Only those of this class list that the database lacks.")] = None,
    json: JsonOption = False,
) -> None:
    """Classes with their number of segments, most frequent first."""
    from retclip.shards import open_database

    database = open_database(name)
    if missing_for is not None:
        from retclip.query.matching import match_labels
        from retclip.vocabularies import load_vocabulary

        labels = match_labels(load_vocabulary(missing_for), database.classes)
        missing = [match.requested for match in labels.matches if match.method == "none"]
        Speech(json).data(missing, "\n".join(missing) or "None is missing.")
        return
    rows: list[StoredClass] = sorted(database.classes, key=lambda item: (-item.count, item.name))
    table = make_table(("id ", "class", "kind", "segments ", "also called"), [
        (item.id, item.name, "thing" if item.is_thing else "stuff", item.count, ", ".join(item.aliases)) for item in rows])
    Speech(json).data([asdict(item) for item in rows], table)


@app.command(epilog="Example: retclip db search coco --image street.jpg --box 10,20,200,180 -k 5")
def search(
    name: NameArgument,
    image: Annotated[Path | None, typer.Option(help="Picture to ask with.")] = None,
    box: Annotated[str | None, typer.Option(help="Region x0,y0,x1,y1 in pixels; default: the whole picture.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Region as a label image, every pixel that is not 0.")] = None,
    text: Annotated[str | None, typer.Option(help="Words to ask with; needs an encoder with a text tower.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Nearest stored segments of a picture or a region of it."""
    from retclip.cli.region import region_key
    from retclip.shards import open_database

    database = open_database(name)
    if text is not None:
        raise ModelError("E209", f"Encoder {database.space.encoder} cannot read text.", why="It has no text tower.",
                         fix="Ask with --image.")
    if image is None:
        raise InputError("E120", "Nothing to ask with.", why="Expected --image.", fix=f"retclip db search {name} --image photo.jpg")
    neighbors = database.search(region_key(database, image, box, mask, device), k)
    places = [(int(s), int(r)) for s, r in zip(neighbors.shard[0], neighbors.row[0], strict=True) if s >= 0]
    found = database.segments(places)
    hits = [{"distance": round(float(d), 6), "label": s.label, "segment_id": f"{s.segment_id:016x}", "image_id": s.image_id,
             "image_uri": s.image_uri, "source": s.source, "box": list(s.box), "license": s.license}
            for d, s in zip(neighbors.distance[0], found, strict=False)]
    table = make_table(("distance ", "class", "segment", "source", "image"), [
        (f"{hit['distance']:.4f}", hit["label"], hit["segment_id"], hit["source"], hit["image_uri"]) for hit in hits])
    Speech(json).data(hits, table)


@app.command(epilog="Example: retclip db delete coco --label zebra --yes")
def delete(
    name: NameArgument,
    label: Annotated[list[str] | None, typer.Option(help="A class with all its segments; may be repeated.")] = None,
    ids: Annotated[Path | None, typer.Option(help="File with segment ids (hexadecimal, one a line).")] = None,
    source: Annotated[str | None, typer.Option(help="All segments of a source, e.g. coco.")] = None,
    yes: YesOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Delete segments; the version before stays readable, and `db undo` takes it back."""
    database = _current(name)
    if not (label or ids or source):
        raise InputError("E120", "Nothing to delete.", why="Expected --label, --ids or --source.", fix=f"retclip db delete {name} --label CLASS")
    with database.write("delete", _program()) as transaction:
        count = transaction.delete(labels=label or (), segment_ids=_read_ids(ids) if ids else (), source=source)
        _confirm(yes, f"Delete {count} of {len(database)} segments of '{database.name}'?")
        result = transaction.commit(f"deleted {count} segments")
    _done(Speech(json, quiet), result, f"deleted {count} segments", count)


@app.command(epilog="Example: retclip db relabel coco couch sofa")
def relabel(
    name: NameArgument,
    old: Annotated[str, typer.Argument(help="Class to rename, or to merge into NEW if that exists.")],
    new: Annotated[str, typer.Argument(help="The new name.")],
    ids: Annotated[Path | None, typer.Option(help="Only the segments of OLD named in this file.")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Rename a class, merge it into another, or move single segments to another class."""
    database = _current(name)
    with database.write("relabel", _program()) as transaction:
        if ids is None:
            count = transaction.relabel(old, new)
        else:
            count = transaction.relabel_segments(_ids_of_class(database, old, _read_ids(ids)), new)
        result = transaction.commit(f"{old} -> {new}, {count} segments")
    _done(Speech(json, quiet), result, f"{count} segments of '{old}' are now '{new}'", count)


@app.command(epilog="Example: retclip db undo coco")
def undo(name: NameArgument, json: JsonOption = False, quiet: QuietOption = False) -> None:
    """Take the last change back; it is itself a new version, so nothing is lost."""
    result = _current(name).undo()
    _done(Speech(json, quiet), result, "took the last change back", len(result))


def _current(name: str) -> Database:
    from retclip.shards import locate_database, open_database

    if locate_database(name)[1] is not None:
        raise InputError("E120", f"'{name}' is an old version.", why="Only the newest version can be changed.",
                         fix=f"Leave out the version: {name.rpartition('@')[0]}")
    return open_database(name)


def _program() -> str:
    from retclip import __version__

    return f"retclip {__version__}"


def _read_ids(path: Path) -> list[int]:
    try:
        words = path.read_text(encoding="utf-8").split()
        return [int(word, 16) for word in words]
    except (OSError, ValueError) as error:
        raise InputError("E124", f"{path} is not a list of segment ids.", why=str(error),
                         fix="One hexadecimal id a line, as segments.json and db search show them.") from error


def _ids_of_class(database: Database, label: str, ids: list[int]) -> list[int]:
    wanted = {item.id for item in database.classes if label in (item.name, *item.aliases)}
    if not wanted:
        raise DatabaseError("E309", f"Database '{database.name}' has no class '{label}'.", fix=f"retclip db classes {database.name}")
    asked = set(ids)
    return [segment.segment_id for _, _, segment in database.iter_segments(sorted(wanted)) if segment.segment_id in asked]


def _confirm(yes: bool, question: str) -> None:
    if not yes and not typer.confirm(question, err=True):
        raise typer.Abort


def _done(speech: Speech, database: Database, text: str, count: int) -> None:
    facts = {"database": database.name, "version": database.version, "changed": count, "segments": len(database)}
    speech.data(facts, f"{database.name}: {text}; version {database.version}, {len(database):,} segments")
