"""`retclip rescore`: the labels of a kept run after a change of the database or of a setting, without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import DATABASES, ClassesOption, JsonOption, QuietOption, change_settings, parse_layering
from retclip.core.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from retclip.core.vocabulary import Vocabulary
    from retclip.query.kept import KeptRun, PictureRecord
    from retclip.query.rescoring import Rescored, Rescorer
    from retclip.reports.outputs import BatchWriter
    from retclip.shards import Database
    from retclip.shards.layers import LayeredIndex

EPILOG = "Example: retclip rescore out --db pets --set retrieval.k=8 --dry-run"
_SHOWN = 20


@dataclass
class Changes:
    """What a rescoring found."""

    pictures: list[dict[str, Any]] = field(default_factory=list)
    before: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)
    written: int = 0

    def add(self, rescored: Rescored) -> None:
        """Count the regions of one picture."""
        self.before.update(rescored.before.labels.values())
        self.after.update(rescored.after.labels.values())
        if rescored.changed:
            moves = [{"proposal": row, "before": old, "after": new} for row, old, new in rescored.moves]
            self.pictures.append({"image": rescored.after.name, "regions": moves})

    @property
    def classes(self) -> dict[str, dict[str, int]]:
        """Regions per class before and after, where they differ, the largest change first."""
        names = {name for name in {*self.before, *self.after} if self.before[name] != self.after[name]}
        ordered = sorted(names, key=lambda name: (-abs(self.after[name] - self.before[name]), name))
        return {name: {"before": self.before[name], "after": self.after[name]} for name in ordered}


@dataclass(frozen=True)
class Output:
    """Where and what is written: every picture or only those that changed, or nothing at all."""

    folder: Path
    formats: tuple[str, ...]
    everything: bool
    dry: bool


def rescore(
    out: Annotated[Path, typer.Argument(help="Folder of a run that was segmented with --keep.", metavar="OUT")],
    db: Annotated[str | None, DATABASES] = None,
    layers: Annotated[str | None, typer.Option(help="first or merged; default: as the run was.")] = None,
    classes: ClassesOption = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: --set retrieval.k=8", metavar="KEY=VALUE")
    ] = None,
    formats: Annotated[
        str | None, typer.Option(help="What is written, as for `retclip segment`, without html; default: as the run.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Write every picture, not only those that changed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Label a kept run again with the newest version of its databases; no network is loaded."""
    from retclip.query.kept import KeptRun, refuse_other_networks
    from retclip.query.question import pose, refuse_other_space
    from retclip.query.rescoring import Rescorer

    speech = Speech(json, quiet)
    kept = KeptRun.open(out)
    output = Output(out, _formats(kept, formats), everything, dry_run)
    index = _open(kept, db, layers)
    refuse_other_space(index, kept.facts.space)
    preset = change_settings(kept.facts.preset, settings or [])
    refuse_other_networks(kept.facts.preset, preset)
    question = pose(index, _vocabulary(kept, index, classes), preset, kept.texts, kept.facts.head)
    rescorer = Rescorer(kept, question)
    changes = _rescore_all(rescorer, output, speech)
    if formats is None and "html" in kept.facts.formats:
        speech.note("note: report.html still shows the labels of its own run.")
    if rescorer.names_only:
        speech.note(f"note: matched by their names only, no text tower was asked: {', '.join(rescorer.names_only[:8])}")
    _report(changes, question.run, len(kept.records), speech)


def _formats(kept: KeptRun, wanted: str | None) -> tuple[str, ...]:
    from retclip.reports.outputs import FORMATS

    known = tuple(name for name in FORMATS if name != "html")
    if wanted is None:
        return tuple(name for name in kept.facts.formats if name in known)
    names = tuple(word.strip() for word in wanted.split(",") if word.strip())
    if unknown := sorted(set(names) - set(known)):
        why = f"Rescoring writes {', '.join(known)}."
        raise InputError("E132", f"Unknown output format: {', '.join(unknown)}.", why=why, fix="Correct --formats.")
    return names


def _open(kept: KeptRun, db: str | None, layers: str | None) -> Database | LayeredIndex:
    from retclip.shards.layers import open_layers, reopen

    layering = kept.facts.layering if layers is None else parse_layering(layers)
    if db is not None:
        return open_layers(db, layering)
    return reopen([(path, None) for path in kept.facts.databases], layering)


def _vocabulary(kept: KeptRun, index: Database | LayeredIndex, classes: str | None) -> Vocabulary:
    from retclip.query.matching import stored_vocabulary
    from retclip.vocabularies import load_vocabulary

    if classes is not None:
        return load_vocabulary(classes)
    return kept.facts.vocabulary if kept.facts.listed else stored_vocabulary(index)


def _rescore_all(rescorer: Rescorer, output: Output, speech: Speech) -> Changes:
    """Label and write; labels are noted last, so that an interrupted rescoring finds the same changes again."""
    kept = rescorer.kept
    changes, records = Changes(), dict(kept.records)
    with speech.progress("rescore", "pictures") as line, _batch(output) as batch:
        for done, rescored in enumerate(rescorer.rescore(), start=1):
            records[rescored.after.name] = rescored.after
            changes.add(rescored)
            if not output.dry and (rescored.changed or output.everything):
                _write(rescorer, rescored, output, batch)
                changes.written += 1
            line.update(done, len(records), f"{len(changes.pictures)} changed")
    if not output.dry:
        kept.records = records
        kept.save_records()
    return changes


def _batch(output: Output) -> AbstractContextManager[BatchWriter | None]:
    """The indices of a run of several pictures; those of a single one has none."""
    from retclip.reports.outputs import BatchWriter

    if output.dry or not (output.folder / "panoptic").is_dir():
        return nullcontext()
    return BatchWriter(output.folder, update=not output.everything)


def _write(rescorer: Rescorer, rescored: Rescored, output: Output, batch: BatchWriter | None) -> None:
    from retclip.reports.outputs import LAYERED, PICTURED, write_outputs

    result = rescorer.result(rescored, with_layers=not LAYERED.isdisjoint(output.formats))
    pixels = None if PICTURED.isdisjoint(output.formats) else _pixels(rescored.after)
    folder = output.folder / Path(result.image).stem
    write_outputs(result, pixels, folder, output.formats)
    if batch is not None:
        batch.add(result, (folder / "panoptic.png").read_bytes() if "panoptic" in output.formats else None)


def _pixels(record: PictureRecord) -> npt.NDArray[np.uint8]:
    """The photo, (H, W, 3) uint8 RGB, as it was segmented."""
    from retclip.core.images import read_picture

    picture = read_picture(Path(record.path))
    if picture.sha256 != record.sha256:
        raise InputError(
            "E343",
            f"{record.path} is another photo than the one that was segmented.",
            why="Its digest has changed, so an overlay would show new labels on other pixels.",
            fix="Segment it again, or leave it out: --formats panoptic,segments",
        )
    return picture.pixels


def _report(changes: Changes, run: Mapping[str, Any], pictures: int, speech: Speech) -> None:
    """Classes with other numbers of regions, and the pictures that changed."""
    document = {
        "schema": "retclip.rescore/1",
        "run": run,
        "pictures": pictures,
        "changed": len(changes.pictures),
        "written": changes.written,
        "classes": changes.classes,
        "images": changes.pictures,
    }
    versions = ", ".join(f"{entry['name']}@{entry['version']}" for entry in run["db"])
    rows = [(name, counts["before"], counts["after"]) for name, counts in changes.classes.items()]
    speech.data(document, make_table(("class", "regions before ", "after "), rows))
    for picture in changes.pictures[:_SHOWN]:
        moves = Counter((move["before"], move["after"]) for move in picture["regions"])
        shown = [f"{old or 'nothing'} -> {new or 'nothing'} x{n}" for (old, new), n in moves.most_common()]
        speech.note(f"{picture['image']}  {', '.join(shown) or 'the same classes, other edges'}")
    if len(changes.pictures) > _SHOWN:
        speech.note(f"and {len(changes.pictures) - _SHOWN} more pictures; --json lists all")
    speech.note(f"{len(changes.pictures)} of {pictures} pictures changed under {versions}, {changes.written} written")
