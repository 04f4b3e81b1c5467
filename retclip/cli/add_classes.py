"""`retclip index add-classes`: teach an existing database, from photos, another corpus or another database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.db_edit import current_database
from retclip.cli.indexing import (
    DryRun,
    IndexTask,
    MaxFailures,
    ReportFile,
    RunControl,
    UseBoxes,
    UseMasks,
    choose_regions,
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
from retclip.cli.runs import show_plan, show_report
from retclip.cli.workers import ExecutorOption, WorkersOption, parse_workforce
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.assembly import LabelMatcher
    from retclip.core.vocabulary import Vocabulary
    from retclip.ports.corpora import Corpus
    from retclip.presets import Preset
    from retclip.shards import Database, StoredClass

EPILOG = 'Example: retclip index add-classes --db coco --classes "forklift" --images photos/'


def add_classes(
    db: Annotated[str, typer.Option(help="Name or path of the database to teach.")],
    classes: ClassesOption = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of photos, one subfolder per class; for one class also a flat folder.")
    ] = None,
    fallback: Annotated[
        str | None, typer.Option(help="Another database, or a corpus (coco, openimages, ...) with --root.")
    ] = None,
    stored_too: Annotated[
        bool, typer.Option("--stored-too", help="From a fallback, also take classes that the database has already.")
    ] = False,
    root: RootOption = None,
    split: SplitOption = None,
    preset: PresetOption = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Keep no more than so many segments of a class.")] = None,
    use_masks: UseMasks = False,
    use_boxes: UseBoxes = False,
    max_failures: MaxFailures = "1%",
    device: DeviceOption = "auto",
    executor: ExecutorOption = "serial",
    workers: WorkersOption = None,
    report: ReportFile = None,
    dry_run: DryRun = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Teach an existing database classes: from a folder of photos, another corpus, or another database."""
    from retclip.assembly import LabelMatcher, choose_preset
    from retclip.corpora import open_corpus
    from retclip.vocabularies import load_vocabulary

    speech = Speech(json, quiet)
    workforce = parse_workforce(executor, workers)
    database = current_database(db)
    if (images is None) == (fallback is None):
        raise InputError(
            "E120",
            "Nothing to learn from." if images is None else "Two places to learn from.",
            why="add-classes takes exactly one of --images and --fallback.",
            fix=f"retclip index add-classes --db {db} --classes ... --images DIR",
        )
    of_database = fallback is not None and not _is_corpus(fallback)
    if images is not None:
        _refuse_idle("--images", {"--root": root, "--stored-too": stored_too})
    if of_database:
        annotated = {"--root": root, "--split": split, "--use-masks": use_masks, "--use-boxes": use_boxes}
        _refuse_idle(f"--fallback {fallback}", {**annotated, "--executor": executor})
    chosen = choose_preset(preset, database)
    vocabulary = load_vocabulary(classes) if classes is not None else None
    lesson = Lesson(database, chosen, LabelMatcher(chosen, device), stored_too, shots, dry_run, report, speech)
    if of_database:
        _copy(lesson, str(fallback), vocabulary)
        return
    corpus = _photos(images, split, vocabulary) if images is not None else open_corpus(str(fallback), root, split)
    if dry_run:
        show_plan(corpus, vocabulary, speech)
        return
    if fallback is not None:
        vocabulary = _lacking(lesson, vocabulary, _classes_of(corpus))
        if vocabulary is None:
            return
    regions = choose_regions(corpus, chosen, use_masks=use_masks, use_boxes=use_boxes, speech=speech)
    refuse_unknown_classes(corpus, vocabulary)
    control = RunControl("add-classes", device, parse_share(max_failures), report, workforce)
    run_index(database, IndexTask(corpus, regions, vocabulary, None, shots), chosen, control, speech)


@dataclass(frozen=True)
class Lesson:
    """Who is taught, and how."""

    database: Database
    preset: Preset
    matcher: LabelMatcher
    stored_too: bool
    shots: int | None
    dry_run: bool
    report: Path | None
    speech: Speech


def _refuse_idle(place: str, options: Mapping[str, object]) -> None:
    """Raise InputError E120 for options that are not at their defaults and would change nothing."""
    if idle := [name for name, value in options.items() if value not in (None, False, "serial")]:
        why = "Photos and databases come as they are; a corpus has a root, splits and annotations."
        raise InputError("E120", f"{', '.join(idle)} cannot be combined with {place}.", why=why, fix="Leave it out.")


def _is_corpus(fallback: str) -> bool:
    from retclip.corpora import corpus_names, is_source
    from retclip.shards import database_path

    return fallback in corpus_names() or (is_source(fallback) and not database_path(fallback).is_dir())


def _photos(folder: Path, split: str | None, vocabulary: Vocabulary | None) -> Corpus:
    """A folder of photos; where one class is asked, photos without a class folder are of that class."""
    from retclip.corpora import CorpusOptions, open_corpus
    from retclip.ports.corpora import CorpusClass

    only = vocabulary[0] if vocabulary is not None and len(vocabulary) == 1 else None
    flat = CorpusClass(only.name, only.name, only.names[1:], only.is_thing) if only else None
    return open_corpus("folder", folder, split, CorpusOptions(flat=flat))


def _classes_of(corpus: Corpus) -> list[StoredClass]:
    from retclip.shards import StoredClass

    return [
        StoredClass(number, item.name, (item.raw, *item.aliases), item.is_thing, 0)
        for number, item in enumerate(corpus.classes)
    ]


def _lacking(lesson: Lesson, asked: Vocabulary | None, offered: Sequence[StoredClass]) -> Vocabulary | None:
    """The asked classes (default: all that are offered) that the database lacks, under the names of the offer.

    None, after a report of a run that added nothing, when it lacks none.
    """
    from retclip.indexer.report import unchanged
    from retclip.query.gaps import missing_classes, with_foreign_names
    from retclip.query.matching import vocabulary_of

    vocabulary = asked or vocabulary_of(lesson.database.name, offered)
    if not lesson.stored_too:
        known = lesson.matcher.match(vocabulary, lesson.database.classes, until_answered=True)
        missing = missing_classes(vocabulary, known)
        stored = len(vocabulary) - (len(missing) if missing else 0)
        if stored:
            lesson.speech.note(f"note: {stored} asked classes are stored already; --stored-too adds to them as well")
        if missing is None:
            show_report(unchanged(lesson.database), lesson.report, lesson.speech)
            return None
        vocabulary = missing
    return with_foreign_names(vocabulary, lesson.matcher.match(vocabulary, offered, until_answered=True))


def _copy(lesson: Lesson, fallback: str, asked: Vocabulary | None) -> None:
    """Take segments with their vectors from another database."""
    from retclip.indexer.extend import copy_classes, copyable
    from retclip.shards import open_database

    if asked is None:
        raise InputError(
            "E120", "No classes named.", why="A fallback database may hold thousands.", fix="Add --classes."
        )
    other = open_database(fallback)
    vocabulary = _lacking(lesson, asked, other.classes)
    if vocabulary is None:
        return
    found = copyable(lesson.database, other, vocabulary)
    if lesson.dry_run:
        table = make_table(("class", "segments "), [(item.name, item.count) for item in found])
        lesson.speech.data([asdict(item) for item in found], table)
        return
    show_report(copy_classes(lesson.database, other, vocabulary, lesson.shots), lesson.report, lesson.speech)
