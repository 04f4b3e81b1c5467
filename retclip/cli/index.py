"""`retclip index`: build a database from a corpus, and teach it further classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retclip.cli.console import ProgressLine, Speech, make_table
from retclip.cli.db_edit import current_database
from retclip.cli.options import (
    ClassesOption,
    DeviceOption,
    JsonOption,
    PresetOption,
    QuietOption,
    RootOption,
    SplitOption,
    parse_share,
)
from retclip.cli.runs import judge, show_plan, show_report, stop_after_unit
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.indexer.build import Progress
    from retclip.indexer.plan import BuildRequest
    from retclip.ports.corpora import Corpus, RegionKind
    from retclip.presets import Preset
    from retclip.shards import Database

app = typer.Typer(no_args_is_help=True, help="Build databases: turn pictures with labels into stored segments.")

UseMasks = Annotated[bool, typer.Option("--use-masks", help="Store the annotated masks.")]
UseBoxes = Annotated[
    bool, typer.Option("--use-boxes", help="Store the annotated boxes as rectangles (folder: whole photos).")
]
MaxFailures = Annotated[str, typer.Option(help="Share or number of pictures that may fail before the exit code is 6.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, load no model, write nothing.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write the run report as JSON to this file.")]


@app.command(epilog="Example: retclip index build --source coco --root coco/ --split train --use-masks --db coco")
def build(
    source: Annotated[str, typer.Option(help="Kind of corpus: coco, ade20k, folder, table.")],
    db: Annotated[str | None, typer.Option(help="Name or path; made when there is none. Default: the source.")] = None,
    root: RootOption = None,
    split: SplitOption = None,
    preset: PresetOption = None,
    classes: ClassesOption = None,
    use_masks: UseMasks = False,
    use_boxes: UseBoxes = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at no more than so many pictures.")] = None,
    per_class_cap: Annotated[
        int | None, typer.Option(min=1, help="Keep no more than so many segments of a class.")
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Forget what an interrupted build finished, e.g. after correcting masks."),
    ] = False,
    max_failures: MaxFailures = "1%",
    device: DeviceOption = "auto",
    report: ReportFile = None,
    dry_run: DryRun = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build a database from a corpus, or add a corpus to one. Interrupted, it goes on where it stopped."""
    from retclip.assembly import choose_preset
    from retclip.corpora import open_corpus
    from retclip.shards import Database, database_path

    speech = Speech(json, quiet)
    corpus = open_corpus(source, root, split)
    if dry_run:
        show_plan(corpus, speech)
        return
    path = database_path(db or source)
    existing = Database.open(path) if path.exists() else None
    chosen = choose_preset(preset, existing)
    kind = _kind(corpus, use_masks=use_masks, use_boxes=use_boxes, speech=speech)
    request = _request(corpus, kind, chosen, classes, limit=limit, per_class_cap=per_class_cap)
    control = RunControl("build", device, parse_share(max_failures), report, restart)
    # Not `existing or path`: an interrupted first build leaves a database without segments, whose truth value is False.
    _run(path if existing is None else existing, request, chosen, control, speech)


@app.command("add-classes", epilog='Example: retclip index add-classes --db coco --classes "forklift" --images photos/')
def add_classes(
    db: Annotated[str, typer.Option(help="Name or path of the database to teach.")],
    classes: ClassesOption = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of photos, one subfolder per class; for one class also a flat folder.")
    ] = None,
    fallback: Annotated[
        str | None, typer.Option(help="Another database, or a corpus (coco, ade20k, table) with --root.")
    ] = None,
    root: RootOption = None,
    split: SplitOption = None,
    preset: PresetOption = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Keep no more than so many segments of a class.")] = None,
    use_masks: UseMasks = False,
    use_boxes: UseBoxes = False,
    max_failures: MaxFailures = "1%",
    device: DeviceOption = "auto",
    report: ReportFile = None,
    dry_run: DryRun = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Teach an existing database classes: from a folder of photos, another corpus, or another database."""
    from retclip.assembly import choose_preset

    speech = Speech(json, quiet)
    database = current_database(db)
    if (images is None) == (fallback is None):
        raise InputError(
            "E120",
            "Nothing to learn from." if images is None else "Two places to learn from.",
            why="add-classes takes exactly one of --images and --fallback.",
            fix=f"retclip index add-classes --db {db} --classes ... --images DIR",
        )
    corpus = _teaching_corpus(classes, images, fallback, root, split)
    if corpus is None:
        _copy_classes(database, str(fallback), classes, shots, dry_run, report, speech)
        return
    if dry_run:
        show_plan(corpus, speech)
        return
    chosen = choose_preset(preset, database)
    kind = _kind(corpus, use_masks=use_masks, use_boxes=use_boxes, speech=speech)
    request = _request(corpus, kind, chosen, classes, limit=None, per_class_cap=shots)
    control = RunControl("add-classes", device, parse_share(max_failures), report)
    _run(database, request, chosen, control, speech)


def _teaching_corpus(
    classes: str | None, images: Path | None, fallback: str | None, root: Path | None, split: str | None
) -> Corpus | None:
    """The corpus behind --images or --fallback; None when the fallback is a database."""
    from retclip.corpora import CorpusOptions, corpus_names, is_source, open_corpus
    from retclip.ports.corpora import CorpusClass
    from retclip.shards import database_path
    from retclip.vocabularies import load_vocabulary

    if images is not None:
        vocabulary = load_vocabulary(classes) if classes else None
        only = vocabulary[0] if vocabulary is not None and len(vocabulary) == 1 else None
        flat = CorpusClass(only.name, only.name, only.names[1:], only.is_thing) if only else None
        return open_corpus("folder", images, split, CorpusOptions(flat=flat))
    assert fallback is not None  # checked by the caller
    is_corpus = fallback in corpus_names() or (is_source(fallback) and not database_path(fallback).is_dir())
    return open_corpus(fallback, root, split) if is_corpus else None


def _kind(corpus: Corpus, *, use_masks: bool, use_boxes: bool, speech: Speech) -> RegionKind:
    if use_masks and use_boxes:
        raise InputError(
            "E120", "--use-masks and --use-boxes were both given.", why="A segment has one region.", fix="Choose one."
        )
    if use_masks:
        return "masks"
    if not use_boxes and corpus.name != "folder":
        raise InputError(
            "E149",
            "Finding objects by their labels needs a detector and a masker; this version has neither.",
            why="Without --use-masks or --use-boxes the regions would have to be found first.",
            fix="Add --use-masks (or --use-boxes) to use the annotated regions.",
        )
    if not use_boxes:
        speech.note(
            "note: without a detector every photo counts whole as an exemplar of its class (mask_source whole-image)"
        )
    return "boxes"


def _request(
    corpus: Corpus,
    kind: RegionKind,
    preset: Preset,
    classes: str | None,
    *,
    limit: int | None,
    per_class_cap: int | None,
) -> BuildRequest:
    from retclip.indexer.plan import BuildRequest
    from retclip.vocabularies import load_vocabulary

    request = BuildRequest(
        corpus,
        kind,
        load_vocabulary(classes) if classes is not None else None,
        limit,
        per_class_cap,
        preset.index.batch,
        preset.index.min_area,
        preset.index.thumbnails,
        preset.index.shard_rows,
    )
    if not request.wanted():
        raise InputError(
            "E122",
            f"The corpus '{corpus.name}' has none of the asked classes.",
            why="It has: "
            + ", ".join(item.name for item in corpus.classes[:12])
            + ("..." if len(corpus.classes) > 12 else ""),
            fix="Check --classes, or the names of the folders.",
        )
    return request


@dataclass(frozen=True)
class RunControl:
    """How a run is carried out and judged."""

    operation: Literal["build", "add-classes"]
    device: str
    max_failures: float
    report: Path | None
    restart: bool = False


def _run(target: Database | Path, request: BuildRequest, preset: Preset, control: RunControl, speech: Speech) -> None:
    """Build into an existing database, or make one at a path; the weights are loaded before anything is written."""
    from retclip.assembly import make_encoder
    from retclip.indexer.build import build as run_build
    from retclip.presets import preset_to_mapping
    from retclip.shards import Database

    encoder = make_encoder(preset.encoder, control.device)
    if isinstance(target, Path):
        target = Database.create(target, encoder.space, preset_to_mapping(preset), preset.index.key_transform)
    with speech.progress("index", "images") as line, stop_after_unit() as check:

        def observe(progress: Progress) -> None:
            _show(line, progress)
            check()

        outcome = run_build(target, request, encoder, control.operation, observe, restart=control.restart)
    show_report(outcome, control.report, speech)
    judge(outcome, control.max_failures)


def _show(line: ProgressLine, progress: Progress) -> None:
    resumed = f", {progress.resumed_units} units resumed" if progress.resumed_units else ""
    line.update(progress.done, progress.total, f"{progress.segments} segments, {progress.failures} failed{resumed}")


def _copy_classes(
    database: Database,
    fallback: str,
    classes: str | None,
    shots: int | None,
    dry_run: bool,
    report: Path | None,
    speech: Speech,
) -> None:
    from retclip.indexer.extend import copy_classes, copyable
    from retclip.shards import open_database
    from retclip.vocabularies import load_vocabulary

    if classes is None:
        raise InputError(
            "E120", "No classes named.", why="A fallback database may hold thousands.", fix="Add --classes."
        )
    other = open_database(fallback)
    vocabulary = load_vocabulary(classes)
    if dry_run:
        found = copyable(database, other, vocabulary)
        speech.data(
            [asdict(item) for item in found], make_table(("class", "segments "), [(c.name, c.count) for c in found])
        )
        return
    show_report(copy_classes(database, other, vocabulary, shots), report, speech)
