"""`retclip segment`: label every region of pictures with what a database remembers."""

from __future__ import annotations

import glob
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech
from retclip.cli.indexing import MaxFailures
from retclip.cli.options import (
    ClassesOption,
    DatabasesOption,
    DeviceOption,
    JsonOption,
    LayersOption,
    PresetOption,
    QuietOption,
    parse_layering,
    parse_share,
    proposal_kinds,
    proposed,
    too_many,
)
from retclip.core.errors import FailuresError, InputError

if TYPE_CHECKING:
    from retclip.assembly import AskedIndex
    from retclip.core.images import Picture
    from retclip.core.results import SegmentationResult
    from retclip.presets import Preset
    from retclip.query.pipeline import RetrievalSegmenter
    from retclip.query.rescoring import Rescorer
    from retclip.shards.layers import Layering

EPILOG = 'Example: retclip segment street.jpg --db ade20k --classes "pier, kayak, person, sky, water" --explain'
_PICTURES_AHEAD = 2
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass
class Run:
    """What one invocation needs and collects."""

    segmenter: RetrievalSegmenter
    database: AskedIndex
    speech: Speech
    out: Path
    formats: tuple[str, ...]
    explain: bool
    keeper: Rescorer | None = None
    documents: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)


def segment(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders of pictures, or glob patterns.")],
    db: DatabasesOption,
    layers: LayersOption = "first",
    classes: ClassesOption = None,
    preset: PresetOption = None,
    proposals: Annotated[
        str, typer.Option(help="preset (as it says), regions, gdino-sam, sam-grid, fcclip, or a folder of mask PNGs.")
    ] = "preset",
    alpha: Annotated[float | None, typer.Option(help="Weight of the out-of-vocabulary score, seen classes.")] = None,
    beta: Annotated[float | None, typer.Option(help="The same for unseen classes.")] = None,
    gamma: Annotated[float | None, typer.Option(help="Weight of retrieval against text similarity.")] = None,
    k: Annotated[int | None, typer.Option("-k", min=1, help="Neighbours per region.")] = None,
    rule: Annotated[str | None, typer.Option(help="minmax (the paper's) or voting.")] = None,
    score_threshold: Annotated[float | None, typer.Option(help="Leave regions below this score unlabelled.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    formats: Annotated[
        str, typer.Option(help="panoptic, coco, overlay, segments, html, semantic, instances; comma-separated.")
    ] = "panoptic,coco,overlay,segments",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep what the networks say, so that `retclip rescore` can do without them.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print why every segment has its label.")] = False,
    max_failures: MaxFailures = "1%",
    device: DeviceOption = "auto",
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Segment pictures: every region gets a class, a score, and the stored exemplars that decided it."""
    from retclip.assembly import choose_preset, make_segmenter, open_index
    from retclip.reports.outputs import FORMATS
    from retclip.vocabularies import load_vocabulary

    speech = Speech(json, quiet)
    names = _find_images(images)
    wanted = tuple(word.strip() for word in formats.split(",") if word.strip())
    if unknown := sorted(set(wanted) - set(FORMATS)):
        raise InputError(
            "E132",
            f"Unknown output format: {', '.join(unknown)}.",
            why=f"Known are {', '.join(FORMATS)}.",
            fix="Correct --formats.",
        )
    database = open_index(db, parse_layering(layers))
    settings = _override(
        choose_preset(preset, database),
        {
            "fusion.alpha": alpha,
            "fusion.beta": beta,
            "fusion.gamma": gamma,
            "retrieval.k": k,
            "retrieval.rule": rule,
            "merge.score_threshold": score_threshold,
        },
    )
    allowed = parse_share(max_failures)
    vocabulary = load_vocabulary(classes) if classes is not None else None
    masks = None if proposals in proposal_kinds() else Path(proposals)
    settings = proposed(settings, proposals if masks is None else "given")
    segmenter = make_segmenter(database, vocabulary, settings, masks, device)
    for note in segmenter.notes:
        speech.note(f"note: {note}")
    run = Run(segmenter, database, speech, out, wanted, explain)
    if keep:
        run.keeper = _keeper(run, classes is not None, parse_layering(layers), masks)
    try:
        _segment_all(run, names)
    finally:
        if run.keeper is not None:
            run.keeper.kept.save_records()
    _finish(run, len(names), allowed)


def _keeper(run: Run, listed: bool, layering: Layering, masks: Path | None) -> Rescorer:
    """What keeps the pictures of a run; `listed`: --classes was given, `masks`: the folder of --proposals."""
    from retclip.query.kept import KeptRun, RunFacts
    from retclip.query.rescoring import Rescorer
    from retclip.shards import Database
    from retclip.shards.layers import LayeredIndex, layers_of

    if not isinstance(run.database, (Database, LayeredIndex)):
        why = "What changes is the database of files; a vector engine holds a copy of one version."
        raise InputError(
            "E120", "--keep needs a database of files.", why=why, fix="Leave --keep out, or name that one."
        )
    question = run.segmenter.question
    facts = RunFacts(
        databases=tuple(layer.path for layer in layers_of(run.database)),
        layering=layering,
        space=run.database.space,
        preset=question.preset,
        vocabulary=question.as_asked,
        listed=listed,
        head=question.head,
        formats=run.formats,
    )
    return Rescorer(KeptRun.create(run.out, facts, run.segmenter.keep_texts(), masks), question)


def _override(preset: Preset, values: dict[str, Any]) -> Preset:
    """The preset with the settings that were given on the command line; checked like a preset file."""
    from retclip.presets import preset_from_mapping, preset_to_mapping

    table = preset_to_mapping(preset)
    for key, value in values.items():
        if value is not None:
            section, name = key.split(".")
            table[section][name] = value
    return preset_from_mapping(table, "the command line")


def _find_images(arguments: Sequence[str]) -> list[Path]:
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            members = sorted(
                p for p in path.iterdir() if p.suffix.lower() in IMAGE_ENDINGS and not p.name.startswith(".")
            )
        else:
            members = [path] if path.exists() else sorted(Path(name) for name in glob.glob(argument))  # noqa: PTH207
        if not members:
            raise InputError(
                "E101",
                f"No pictures at {argument}.",
                why=f"Looked for files ending in {', '.join(IMAGE_ENDINGS)}.",
                fix="Check the path.",
            )
        found.extend(members)
    found = list(dict.fromkeys(found))
    stems = Counter(path.stem for path in found)
    if twice := next((stem for stem, count in stems.items() if count > 1), None):
        first, second = [path for path in found if path.stem == twice][:2]
        raise InputError(
            "E133",
            f"{first} and {second} would write the same results.",
            why="Results are named by the file name without its ending.",
            fix="Segment them in two runs with different --out folders.",
        )
    return found


def _segment_all(run: Run, names: Sequence[Path]) -> None:
    from retclip.reports.html import ReportItem, write_html_report
    from retclip.reports.outputs import BatchWriter

    single = len(names) == 1
    with run.speech.progress("segment", "pictures") as line, nullcontext() if single else BatchWriter(run.out) as batch:

        def items() -> Iterator[ReportItem]:
            for done, (result, picture) in enumerate(_results(run, names), start=1):
                _write(run, result, picture)
                if batch is not None:
                    batch.add(result)
                line.update(done + len(run.failures), len(names), f"{len(run.failures)} failed")
                yield ReportItem(result, picture.pixels)

        if "html" in run.formats:
            run.out.mkdir(parents=True, exist_ok=True)
            write_html_report(run.out / "report.html", items(), run.segmenter.run, run.database.thumbnail)
        else:
            for _ in items():
                pass


def _results(run: Run, names: Sequence[Path]) -> Iterator[tuple[SegmentationResult, Picture]]:
    """Results one by one, the next pictures decoded meanwhile; a picture that fails is named and skipped."""
    from retclip.core.prefetch import prefetched

    for name, read in zip(names, prefetched(_pictures(names), _PICTURES_AHEAD), strict=True):
        try:
            if isinstance(read, InputError):
                raise read
            yield _labelled(run, read, name), read
        except InputError as error:
            run.failures.append({"image": str(name), "code": error.code, "message": error.what})
            run.speech.note(f"failed {error}")


def _pictures(names: Sequence[Path]) -> Iterator[Picture | InputError]:
    """Decoded pictures; an error stands for one that cannot be used."""
    from retclip.core.images import read_picture

    for name in names:
        try:
            picture: Picture | InputError = read_picture(name)
        except InputError as error:
            picture = error
        yield picture


def _labelled(run: Run, picture: Picture, path: Path) -> SegmentationResult:
    if run.keeper is None:
        return run.segmenter.segment([picture])[0]
    began = time.perf_counter()
    masks, observation = run.segmenter.observe(picture)
    evidence = run.segmenter.question.weigh(observation)
    run.keeper.keep(picture, str(path.resolve()), masks, observation, evidence)
    return run.segmenter.label(picture, masks, evidence, began)


def _write(run: Run, result: SegmentationResult, picture: Picture) -> None:
    from rich.console import Console

    from retclip.reports.explain import print_explanations
    from retclip.reports.outputs import write_outputs
    from retclip.reports.provenance import segments_document

    folder = run.out / Path(result.image).stem
    per_image = [name for name in run.formats if name != "html"]
    files = write_outputs(result, picture.pixels, folder, per_image, run.database.thumbnail)
    if run.speech.json:
        facts = {"seconds": round(result.seconds, 3), "files": [str(path) for path in files]}
        run.documents.append({**segments_document(result), **facts})
    elif run.explain:
        print_explanations(result, Console(width=None))
    else:
        run.speech.data(
            None,
            f"{result.image}  {len(result.explanations)} segments in {result.seconds:.2f} s  -> {folder}",
        )


def _finish(run: Run, total: int, max_failures: float) -> None:
    if run.speech.json:
        run.speech.data(
            {"schema": "retclip.segment/1", "run": run.segmenter.run, "images": run.documents, "failures": run.failures}
        )
    if "html" in run.formats and len(run.failures) < total:
        run.speech.note(f"report: {run.out / 'report.html'}")
    if too_many(len(run.failures), total, max_failures):
        raise FailuresError(
            "E601",
            f"{len(run.failures)} of {total} pictures failed.",
            why=run.failures[0]["message"],
            fix="See the list above; the others are written.",
        )
