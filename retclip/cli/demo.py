"""`retclip demo`: the whole system on drawn scenes, offline: classes are taught, one by mistake, and mended."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption, QuietOption
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.reports.demo_page import Chapter, Story

EPILOG = "Example: retclip demo --out retclip-demo"
SCHEMA = "retclip.demo/1"
_RECORD = "demo.json"
_FOLDERS = ("home", "scenes", "lesson", "results", "evaluation", "explained")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo makes.")] = Path("retclip-demo"),
    preset: Annotated[str, typer.Option(help="Name or TOML file of a preset with detector and masker.")] = "tiny",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """See the whole system work within two minutes: no data, no download, no network, no GPU.

    Builds a database from drawn scenes, segments scenes with two classes that it lacks, teaches them by a few
    exemplars, finds and deletes a misfiled one, and measures every step. Commands are shown as you would type them.
    """
    speech, began = Speech(json, quiet), time.perf_counter()
    _prepare_stage(out)
    from retclip.cli.demo_telling import own_home
    from retclip.cli.demo_walk import DATABASE, PLAN, Walk
    from retclip.core.files import write_json
    from retclip.reports.demo_page import summary_rows, write_demo_page
    from retclip.shards import open_database

    with own_home(out / "home"):
        walk = Walk(PLAN, out, preset, speech)
        walk.go()
        story = walk.story(time.perf_counter() - began, _peak_bytes())
        report = write_demo_page(out / "report.html", story, open_database(DATABASE).thumbnail)
    document = {"finished": True, "preset": preset, **_document(story), "report": str(report)}
    write_json(out / _RECORD, {"schema": SCHEMA, **document})
    for claim, holds in story.expectations:
        speech.note(f"{'yes' if holds else 'NO '}  {claim}")
    speech.data({"schema": SCHEMA, **document}, make_table(*summary_rows(story)))
    speech.note(f"{story.seconds:.0f} s, at most {story.peak_bytes / 2**30:.2f} GiB of memory. Report: {report}")


def _prepare_stage(out: Path) -> None:
    """An empty folder, or that of an earlier demo without what it made.

    Raises:
        InputError: E240 for a folder with anything else in it, E241 if what an earlier demo made cannot be removed.
    """
    from retclip.core.files import prepare_folder, write_json

    prepare_folder(out)
    if any(out.iterdir()) and not (out / _RECORD).is_file():
        why = f"It is not empty, and no demo wrote it: there is no {_RECORD}."
        raise InputError("E240", f"{out} is no folder for the demo.", why=why, fix="Choose another one with --out.")
    for folder in (out / name for name in _FOLDERS if (out / name).exists()):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            what, fix = f"{folder} of an earlier demo cannot be removed.", "Remove it, or choose another --out."
            raise InputError("E241", what, why=str(error), fix=fix) from error
    write_json(out / _RECORD, {"schema": SCHEMA, "finished": False})


def _peak_bytes() -> int:
    """The most memory this process ever had; macOS counts bytes, Linux KiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _document(story: Story) -> dict[str, Any]:
    """The story as plain JSON types, without its pictures."""
    return {
        "steps": [_step(chapter) for chapter in story.chapters],
        "expectations": [{"claim": claim, "holds": holds} for claim, holds in story.expectations],
        "seconds": round(story.seconds, 1),
        "peak_memory_bytes": story.peak_bytes,
    }


def _step(chapter: Chapter) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "title": chapter.title,
        "commands": chapter.commands,
        "remarks": chapter.remarks,
        "seconds": round(chapter.seconds, 1),
    }
    if chapter.measured is None:
        return facts
    objects = [asdict(naming) for naming in chapter.measured.namings]
    for exemplar in (exemplar for shown in objects for exemplar in shown["exemplars"]):
        exemplar["segment_id"] = f"{exemplar['segment_id']:016x}"
    return {**facts, "version": chapter.measured.version, "pq": chapter.measured.pq, "objects": objects}
