"""What `index build` and `index add-classes` share: which regions to store, and the run itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retclip.cli.console import ProgressLine, Speech
from retclip.cli.runs import judge, show_report, stop_after_unit
from retclip.cli.workers import Workforce
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.assembly import RegionKinds
    from retclip.core.vocabulary import Vocabulary
    from retclip.corpora import CorpusOptions
    from retclip.indexer.build import Progress
    from retclip.indexer.plan import BuildRequest
    from retclip.ports.corpora import Corpus
    from retclip.ports.encoders import DenseEncoder
    from retclip.presets import Preset
    from retclip.shards import Database

UseMasks = Annotated[bool, typer.Option("--use-masks", help="Store the annotated masks; nothing is detected.")]
UseBoxes = Annotated[
    bool,
    typer.Option("--use-boxes", help="Take annotated boxes (folder: whole photos) to the masker, if there is one."),
]
PathColumn = Annotated[
    str | None, typer.Option(help="Column of the pictures (table, hf), where its name is not a usual one.")
]
LabelsColumn = Annotated[str | None, typer.Option(help="The same for labels.")]
CaptionColumn = Annotated[str | None, typer.Option(help="The same for captions.")]
ClassNames = Annotated[
    str | None,
    typer.Option(help="Names of numbered classes (webdataset, hf), in their order.", metavar="FILE|LIST|@NAME"),
]
MaxFailures = Annotated[str, typer.Option(help="Share or number of pictures that may fail before the exit code is 6.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, load no model, write nothing.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Also write the run report as JSON to this file.")]


@dataclass(frozen=True)
class IndexTask:
    """What to take from a corpus: which regions of which classes, at most how many."""

    corpus: Corpus
    regions: RegionKinds
    vocabulary: Vocabulary | None = None
    limit: int | None = None
    per_class_cap: int | None = None


@dataclass(frozen=True)
class RunControl:
    """How a run is carried out and judged."""

    operation: Literal["build", "add-classes"]
    device: str
    max_failures: float
    report: Path | None
    workforce: Workforce
    restart: bool = False


def corpus_options(
    source: str, path: str | None, labels: str | None, caption: str | None, class_names: str | None
) -> CorpusOptions:
    """What --path-column, --labels-column, --caption-column and --class-names say.

    Raises:
        InputError: E120 for a source without columns, or without numbered classes.
    """
    from retclip.corpora import CorpusOptions, TableColumns
    from retclip.vocabularies import load_vocabulary

    columns = TableColumns(path, labels, caption)
    if columns != TableColumns() and source not in ("table", "hf"):
        why = "Only table and hf have columns."
        raise InputError("E120", f"Columns were named for --source {source}.", why=why, fix="Leave them out.")
    if class_names is not None and source not in ("webdataset", "hf"):
        why = "Only webdataset and hf may have classes that are numbers."
        raise InputError("E120", f"--class-names was given for --source {source}.", why=why, fix="Leave it out.")
    names = () if class_names is None else tuple(load_vocabulary(class_names).names)
    return CorpusOptions(columns=columns, class_names=names)


def open_labelled(
    source: str,
    place: tuple[Path | None, str | None],
    labels: str,
    classes: Vocabulary | None,
    options: CorpusOptions,
) -> Corpus:
    """A corpus with the labels that are asked for.

    Args:
        source: kind of corpus.
        place: its root and split.
        labels: `own`; `machine:0.8`, which adds machine labels of at least that confidence (openimages); `captions`,
            which adds classes that captions mention.
        classes: what captions are searched for.
        options: see `corpus_options`.

    Raises:
        InputError: E120 for other labels, captions without classes, and machine labels of another corpus.
    """
    from retclip.corpora import open_corpus
    from retclip.corpora.mined import MinedCorpus

    kind, _, threshold = labels.partition(":")
    if kind == "captions" and not threshold and classes is None:
        why = "Captions are searched for the names of a class list."
        raise InputError("E120", "--labels captions needs --classes.", why=why, fix="Add e.g. --classes @coco133.")
    try:
        machine = float(threshold) if kind == "machine" else None
    except ValueError:
        machine = -1.0
    known = labels in ("own", "captions") or (machine is not None and 0 < machine <= 1)
    if not known:
        why = "Expected own, captions, or machine: and a confidence, e.g. machine:0.8."
        raise InputError("E120", f"--labels '{labels}' is not known.", why=why, fix="Correct it.")
    if machine is not None and source != "openimages":
        why = f"'{source}' does not tell labels by a machine from others."
        raise InputError("E120", f"--labels {labels} needs --source openimages.", why=why, fix="Leave it out.")
    corpus = open_corpus(source, *place, replace(options, machine_labels=machine))
    return MinedCorpus(corpus, classes) if kind == "captions" and classes is not None else corpus


def choose_regions(corpus: Corpus, preset: Preset, *, use_masks: bool, use_boxes: bool, speech: Speech) -> RegionKinds:
    """Annotated masks or boxes as asked, else what detector and masker find.

    Raises:
        InputError: E120 for both, E149 when regions have to be found and the preset has no detector or no masker.
    """
    if use_masks and use_boxes:
        raise InputError(
            "E120", "--use-masks and --use-boxes were both given.", why="A segment has one region.", fix="Choose one."
        )
    if use_masks or use_boxes:
        return "masks" if use_masks else "boxes"
    if preset.detector.library != "none" and preset.masker.library != "none":
        return "found"
    if corpus.name != "folder":
        raise InputError(
            "E149",
            f"Finding objects by their labels needs a detector and a masker; preset '{preset.name}' has not both.",
            why="Without --use-masks or --use-boxes the regions have to be found first.",
            fix="Add --use-masks or --use-boxes for annotated regions, or take a preset with both: --preset balanced.",
        )
    speech.note(
        "note: without a detector every photo counts whole as an exemplar of its class (mask_source whole-image)"
    )
    return "boxes"


def refuse_unknown_classes(corpus: Corpus, vocabulary: Vocabulary | None) -> None:
    """Raise InputError E122 when the corpus has none of the asked classes; no network is loaded for nothing."""
    from retclip.indexer.plan import wanted_classes

    if not wanted_classes(corpus, vocabulary):
        names = ", ".join(item.name for item in corpus.classes[:12]) + ("..." if len(corpus.classes) > 12 else "")
        raise InputError(
            "E122",
            f"The corpus '{corpus.name}' has none of the asked classes.",
            why=f"It has: {names}",
            fix="Check --classes, or the names of the folders.",
        )


@dataclass(frozen=True)
class IndexRecipe:
    """Makes the request and the encoder of a run on a device; every worker does that for itself."""

    preset: Preset
    task: IndexTask

    def __call__(self, device: str, *, recorded: bool = False) -> tuple[BuildRequest, DenseEncoder]:
        """What is missing is told by `make_index_models`, before anything imports torch.

        `recorded`: the request names the networks with digests of their files; only the process that commits wants it.
        """
        from retclip.assembly import make_index_models

        task, settings = self.task, self.preset.index
        models = make_index_models(self.preset, task.corpus, task.regions, device)
        from retclip.indexer.plan import BuildRequest

        request = BuildRequest(
            task.corpus,
            models.source,
            vocabulary=task.vocabulary,
            limit=task.limit,
            per_class_cap=task.per_class_cap,
            batch=settings.batch,
            min_area=settings.min_area,
            thumbnails=settings.thumbnails,
            shard_rows=settings.shard_rows,
            models=models.records() if recorded else (),
        )
        return request, models.encoder


def run_index(target: Database | Path, task: IndexTask, preset: Preset, control: RunControl, speech: Speech) -> None:
    """Build into an existing database, or make one at a path; the weights are loaded before anything is written."""
    from retclip.presets import preset_to_mapping
    from retclip.shards import Database

    recipe = IndexRecipe(preset, task)
    request, encoder = recipe(control.workforce.device_here(control.device), recorded=True)
    from retclip.indexer.build import build

    if isinstance(target, Path):
        target = Database.create(target, encoder.space, preset_to_mapping(preset), preset.index.key_transform)
    executor = control.workforce.executor(recipe, control.device)
    with speech.progress("index", "images") as line, stop_after_unit() as check:

        def observe(progress: Progress) -> None:
            _show(line, progress)
            check()

        outcome = build(
            target, request, encoder, control.operation, observe, restart=control.restart, executor=executor
        )
    show_report(outcome, control.report, speech)
    judge(outcome, control.max_failures)


def _show(line: ProgressLine, progress: Progress) -> None:
    resumed = f", {progress.resumed_units} units resumed" if progress.resumed_units else ""
    line.update(progress.done, progress.total, f"{progress.segments} segments, {progress.failures} failed{resumed}")
