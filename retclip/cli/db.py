"""`retclip db`: look into databases, correct them, and take corrections back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import DeviceOption, JsonOption, NameArgument
from retclip.core.errors import DatabaseError, EmptyDatabase, InputError

if TYPE_CHECKING:
    from retclip.shards import Database, StoredClass

app = typer.Typer(no_args_is_help=True, help="Look into databases, correct them, and take corrections back.")


@app.command("list", epilog="Example: retclip db list")
def list_all(json: JsonOption = False) -> None:
    """Databases in $RETCLIP_HOME/db."""
    from retclip.shards import Database, list_databases

    rows: list[dict[str, Any]] = []
    for path in list_databases():
        try:
            database = Database.open(path)
            rows.append(
                {
                    "name": database.name,
                    "version": database.version,
                    "segments": len(database),
                    "classes": len(database.classes),
                    "encoder": database.space.encoder,
                    "state": _state(database),
                }
            )
        except DatabaseError as error:
            rows.append(
                {
                    "name": path.stem,
                    "version": None,
                    "segments": None,
                    "classes": None,
                    "encoder": None,
                    "state": f"{error.code} {error.what}",
                }
            )
    table = make_table(
        ("name", "version ", "segments ", "classes ", "encoder", "state"), [list(row.values()) for row in rows]
    )
    Speech(json).data(rows, table if rows else "No databases yet. Make one: retclip index build --help")


def _state(database: Database) -> str:
    newer = ", ".join(map(str, database.passed_over))
    return f"version {newer} is damaged, version {database.version} is served" if newer else "ok"


@app.command(epilog="Example: retclip db info coco@2 --json")
def info(name: NameArgument, json: JsonOption = False) -> None:
    """What a database holds, how it was made, and which classes are thin."""
    from retclip.shards import open_database

    database = open_database(name)
    facts = _facts(database)
    thin = sorted(database.classes, key=lambda item: (item.count, item.name))[:5]
    rows = [
        ("database", f"{facts['name']} version {facts['version']} ({facts['created']})"),
        ("state", _state(database)),
        ("segments", f"{facts['segments']:,}"),
        ("classes", facts["classes"]),
        ("images", f"{facts['images']:,}"),
        ("encoder", f"{database.space.encoder}, {database.space.dim}-d, stride {database.space.stride}"),
        ("layers", ", ".join(database.space.layers)),
        ("feature space", facts["feature_space"]["fingerprint"]),
        ("weights sha256", database.space.weights_sha256),
        ("key transform", facts["key_transform"]),
        ("sources", _counts(facts["sources"])),
        ("licences", _counts(facts["licenses"])),
        ("networks", "\n".join(_network(model) for model in facts["models"]) or "not recorded"),
        ("thinnest classes", ", ".join(f"{item.name} {item.count}" for item in thin) or "-"),
        ("dead rows", f"{facts['dead_rows']:,}" + (f" (retclip db compact {name})" if facts["worn_shards"] else "")),
        ("interrupted builds", ", ".join(facts["unfinished"]) or "none"),
        ("unfinished copies", _abandoned(facts["abandoned"], name)),
    ]
    Speech(json).data(facts, make_table(("", ""), rows))


def _facts(database: Database) -> dict[str, Any]:
    from retclip.shards import unfinished_jobs
    from retclip.shards.compaction import worn
    from retclip.shards.database import SHARD_ROWS
    from retclip.shards.sweep import abandoned

    jobs = [name for name, _ in unfinished_jobs(database.path)]
    return {
        "name": database.name,
        "path": str(database.path),
        "version": database.version,
        "created": database.created,
        "passed_over": list(database.passed_over),
        "segments": len(database),
        "classes": len(database.classes),
        "images": database.image_count,
        "feature_space": {"fingerprint": database.space.fingerprint, **database.space.to_json()},
        "key_transform": database.transform,
        "content_hash": database.content_hash(),
        "sources": dict(database.sources),
        "licenses": dict(database.licenses),
        "models": [dict(model) for model in database.models],
        "preset": dict(database.preset),
        "dead_rows": sum(entry.rows for entry in database.manifest.shards) - len(database),
        "worn_shards": len(worn(database.snapshot, SHARD_ROWS)),
        "unfinished": jobs,
        "abandoned": [str(path) for path in abandoned(database.path.parent)],
        "history": [asdict(entry) for entry in database.history()],
    }


def _abandoned(paths: Sequence[str], name: str) -> str:
    """What killed programs left beside the database."""
    return f"{len(paths)} beside it, of killed programs (retclip db gc {name})" if paths else "none"


def _network(model: Mapping[str, str]) -> str:
    """A network that took part; old manifests may leave keys out."""
    known = {key: model.get(key) or "unknown" for key in ("role", "name", "license", "sha256")}
    return f"{known['role']} {known['name']}, {known['license']}, sha256 {known['sha256'][:12]}"


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{key or 'unknown'} {count:,}" for key, count in values.items()) or "-"


@app.command(epilog="Example: retclip db log coco")
def log(name: NameArgument, json: JsonOption = False) -> None:
    """Every version: when, by which command, and what it holds."""
    from retclip.shards import open_database

    rows = [asdict(entry) for entry in open_database(name).history()]
    table = make_table(
        ("version ", "created", "operation", "segments ", "classes ", "note"),
        [[row[key] for key in ("version", "created", "operation", "segments", "classes", "note")] for row in rows],
    )
    Speech(json).data(rows, table)


@app.command(epilog="Example: retclip db verify coco --deep")
def verify(
    name: NameArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Read and check every byte.")] = False,
    json: JsonOption = False,
) -> None:
    """Check that a database is whole; exit code 5 when it is not."""
    from retclip.shards import locate_database
    from retclip.shards import verify as verify_database
    from retclip.shards.verification import untouched

    path, version = locate_database(name)
    report = verify_database(path, version, deep)
    rows = [(problem.code, problem.file, problem.message) for problem in report.problems]
    head = f"{name}: version {report.version}, {report.segments:,} segments, {len(report.checked)} files checked"
    head += f", content hash {report.content_hash}" if report.content_hash else ""
    speech = Speech(json)
    speech.data({"ok": report.ok, **asdict(report)}, head + ("" if rows else " - whole"))
    if rows:
        if not json:
            speech.data(None, make_table(("code", "file", "problem"), rows))
        unread = all(code == "E320" for code, _, _ in rows)
        spared = untouched(path, report)
        raise DatabaseError(
            "E320" if unread else "E303",
            f"Database '{name}' {'cannot be read' if unread else 'is damaged'}: {len(rows)} problems.",
            why=f"{rows[0][1]}: {rows[0][2]}",
            fix=("Check the permissions of the named files" if unread else "Restore the named files from a copy")
            + (f", or use a version that does without them: {path.stem}@{spared[-1]}" if spared else "."),
        )


@app.command(epilog="Example: retclip db classes coco --missing-for @coco133")
def classes(
    name: NameArgument,
    missing_for: Annotated[
        str | None, typer.Option(help="Only those of this class list that the database lacks.")
    ] = None,
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
    table = make_table(
        ("id ", "class", "kind", "segments ", "also called"),
        [
            (item.id, item.name, "thing" if item.is_thing else "stuff", item.count, ", ".join(item.aliases))
            for item in rows
        ],
    )
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
    """Nearest stored segments of a picture, of a region of it, or of words."""
    from retclip.cli.region import region_key, text_key
    from retclip.shards import open_database

    database = open_database(name)
    if not database.classes:
        raise EmptyDatabase(database.name, database.version)
    if text is not None and image is None:
        key = text_key(database, text, device)
    elif image is not None and text is None:
        key = region_key(database, image, box, mask, device)
    else:
        raise InputError(
            "E120",
            "Nothing to ask with." if image is None else "Two things to ask with.",
            why="Expected one of --image and --text.",
            fix=f"retclip db search {name} --image photo.jpg",
        )
    neighbors = database.search(key, k)
    places = [(int(s), int(r)) for s, r in zip(neighbors.shard[0], neighbors.row[0], strict=True) if s >= 0]
    found = database.segments(places)
    hits = [
        {
            "distance": round(float(d), 6),
            "label": s.label,
            "segment_id": f"{s.segment_id:016x}",
            "image_id": s.image_id,
            "image_uri": s.image_uri,
            "source": s.source,
            "box": list(s.box),
            "license": s.license,
        }
        for d, s in zip(neighbors.distance[0], found, strict=False)
    ]
    table = make_table(
        ("distance ", "class", "segment", "source", "image"),
        [(f"{hit['distance']:.4f}", hit["label"], hit["segment_id"], hit["source"], hit["image_uri"]) for hit in hits],
    )
    Speech(json).data(hits, table)
