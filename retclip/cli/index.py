"""`retclip index`: build a database from a corpus, and teach it further classes."""

from __future__ import annotations

from typing import Annotated

import typer

from retclip.cli import add_classes
from retclip.cli.console import Speech
from retclip.cli.indexing import (
    CaptionColumn,
    ClassNames,
    DryRun,
    IndexTask,
    LabelsColumn,
    MaxFailures,
    PathColumn,
    ReportFile,
    RunControl,
    UseBoxes,
    UseMasks,
    choose_regions,
    corpus_options,
    open_labelled,
    refuse_unknown_classes,
    run_index,
)
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
from retclip.cli.runs import show_plan
from retclip.cli.workers import ExecutorOption, WorkersOption, parse_workforce

app = typer.Typer(no_args_is_help=True, help="Build databases: turn pictures with labels into stored segments.")


@app.command(epilog="Example: retclip index build --source coco --root coco/ --split train --use-masks --db coco")
def build(
    source: Annotated[
        str, typer.Option(help="Kind of corpus: coco, ade20k, openimages, webdataset, hf, folder or table.")
    ],
    db: Annotated[str | None, typer.Option(help="Name or path; made when there is none. Default: the source.")] = None,
    root: RootOption = None,
    split: SplitOption = None,
    preset: PresetOption = None,
    classes: ClassesOption = None,
    labels: Annotated[
        str, typer.Option(help="own; captions (adds the classes that captions mention); machine:0.8 (openimages).")
    ] = "own",
    path_column: PathColumn = None,
    labels_column: LabelsColumn = None,
    caption_column: CaptionColumn = None,
    class_names: ClassNames = None,
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
    executor: ExecutorOption = "serial",
    workers: WorkersOption = None,
    report: ReportFile = None,
    dry_run: DryRun = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build a database from a corpus, or add a corpus to one. Interrupted, it goes on where it stopped."""
    from retclip.assembly import choose_preset
    from retclip.shards import Database, database_path, new_database_path
    from retclip.vocabularies import load_vocabulary

    speech = Speech(json, quiet)
    workforce = parse_workforce(executor, workers)
    vocabulary = load_vocabulary(classes) if classes is not None else None
    options = corpus_options(source, path_column, labels_column, caption_column, class_names)
    corpus = open_labelled(source, (root, split), labels, vocabulary, options)
    if dry_run:
        show_plan(corpus, vocabulary, speech)
        return
    path = database_path(db or source)
    existing = Database.open(path) if path.exists() else None
    if existing is None:
        new_database_path(db or source)
    chosen = choose_preset(preset, existing)
    regions = choose_regions(corpus, chosen, use_masks=use_masks, use_boxes=use_boxes, speech=speech)
    refuse_unknown_classes(corpus, vocabulary)
    task = IndexTask(corpus, regions, vocabulary, limit, per_class_cap)
    control = RunControl("build", device, parse_share(max_failures), report, workforce, restart)
    # Not `existing or path`: an interrupted first build leaves a database without segments, whose truth value is False.
    run_index(path if existing is None else existing, task, chosen, control, speech)


app.command("add-classes", epilog=add_classes.EPILOG)(add_classes.add_classes)
