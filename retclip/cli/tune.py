"""`retclip tune`: find the settings that label unseen pictures best, without running a network."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import ClassesOption, JsonOption, PresetOption, QuietOption, change_settings
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.core.vocabulary import Vocabulary
    from retclip.evaluation.held_out import HeldOut
    from retclip.evaluation.tuning import Candidate, Ground, Outcome
    from retclip.presets import Preset
    from retclip.shards import Database

EPILOG = (
    "Example: retclip tune --db photo --try retrieval.k=8,16,32 --try retrieval.temperature=.02,.05,.1 --out tuned.toml"
)
_FIT = "fusion.reliability=fitted"
_SHOWN = 10


def tune(
    db: Annotated[str, typer.Option(help="Database: name or path, NAME@7 for version 7.")],
    preset: PresetOption = None,
    classes: ClassesOption = None,
    tries: Annotated[
        list[str] | None, typer.Option("--try", help="Values to try: --try fusion.gamma=0,.3,.5", metavar="KEY=A,B,..")
    ] = None,
    observations: Annotated[
        Path | None, typer.Option(help="Output folder of `retclip eval --proposals given`, to tune with every expert.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="The set of those observations.")] = None,
    root: Annotated[Path | None, typer.Option(help="Where that set lies.")] = None,
    split: Annotated[str, typer.Option(help="Its split.")] = "train",
    images: Annotated[int, typer.Option(min=2, help="Pictures of the database to tune on.")] = 2000,
    out: Annotated[Path | None, typer.Option(help="Write the best settings here as a preset (.toml).")] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Try settings on pictures the database can be asked about as if it had never seen them.

    By default these are its own pictures, each left out in turn, with half of the classes hidden in turn.
    """
    from retclip.assembly import choose_preset
    from retclip.evaluation.tuning import best_of, sweep, with_fit
    from retclip.shards import open_database

    speech = Speech(json, quiet)
    database = open_database(db)
    base = choose_preset(preset, database)
    grid = parse_grid(tries or [])
    candidates = make_candidates(base, grid)
    ground = _make_ground(database, base, classes, (observations, dataset, root, split), images)
    speech.note(
        f"{len(candidates)} settings on {len(ground.held_out)} segments of {len(ground.held_out.digests)} pictures"
    )
    with speech.progress("tune", "settings x folds") as line:
        outcomes = sweep(ground, candidates, line.update)
    best = best_of(outcomes)
    found = with_fit(ground, best)
    if out is not None:
        _write(out, found, database, best)
    _show(outcomes, grid, found, speech)


def _write(path: Path, preset: Preset, database: Database, best: Outcome) -> None:
    from retclip.core.files import write_bytes
    from retclip.presets.writer import preset_to_toml

    comment = f"Tuned on {database.name}@{database.version}: stored {best.stored:.4f}, absent {best.absent:.4f}."
    write_bytes(path, preset_to_toml(preset, comment).encode())


def parse_grid(tries: Sequence[str]) -> dict[str, list[str]]:
    """`fusion.gamma=0,.3` -> {"fusion.gamma": ["0", "0.3"]}. Raises InputError E143."""
    grid: dict[str, list[str]] = {}
    for text in tries:
        key, separator, values = text.partition("=")
        items = [f"0{v}" if v.startswith(".") else v for v in (item.strip() for item in values.split(",")) if v]
        if not separator or not items:
            why = "Expected section.name=value,value,..."
            raise InputError("E143", f"--try {text} names no values.", why=why, fix="E.g. --try fusion.gamma=0,.3,.5")
        grid[key.strip()] = items
    return grid


def make_candidates(base: Preset, grid: dict[str, list[str]]) -> list[Candidate]:
    """Every combination of the grid; `fusion.reliability=fitted` asks for a fit on the database."""
    from retclip.evaluation.tuning import Candidate

    candidates = []
    for values in itertools.product(*grid.values()):
        changes = [f"{key}={value}" for key, value in zip(grid, values, strict=True)]
        plain = [change if change != "fusion.reliability=none" else "fusion.reliability=[]" for change in changes]
        settings = change_settings(base, [change for change in plain if change != _FIT])
        candidates.append(Candidate(settings, _FIT in changes))
    return candidates


def _make_ground(
    database: Database,
    preset: Preset,
    classes: str | None,
    observed: tuple[Path | None, str | None, Path | None, str],
    images: int,
) -> Ground:
    import numpy as np

    from retclip.assembly import LabelMatcher
    from retclip.evaluation.datasets import load_seen_classes, seen_list_of
    from retclip.evaluation.held_out import OwnPicture, from_database
    from retclip.evaluation.tuning import Ground
    from retclip.query.matching import vocabulary_of
    from retclip.vocabularies import load_vocabulary

    folder, name, root, split = observed
    if folder is not None:
        vocabulary, held_out = _read_observed(folder, name, root, split)
    else:
        vocabulary = load_vocabulary(classes) if classes else vocabulary_of(database.name, database.classes)
    labels = LabelMatcher(preset, "auto").match(vocabulary, database.classes)
    if folder is None:
        held_out = from_database(database, labels, images)
    listed = seen_list_of(name) if name else None
    trained = load_seen_classes(listed, vocabulary) if listed else frozenset[int]()
    seen = np.isin(np.arange(len(vocabulary)), sorted(trained))
    is_thing = np.array([category.is_thing for category in vocabulary])
    return Ground(held_out, OwnPicture(database, held_out.digests), labels, is_thing, seen)


def _read_observed(folder: Path, name: str | None, root: Path | None, split: str) -> tuple[Vocabulary, HeldOut]:
    import json as codec

    from retclip.evaluation.datasets import open_evaluation_set
    from retclip.evaluation.held_out import from_observations
    from retclip.query.observations import ObservationStore

    if name is None:
        why = "Observations hold no annotation."
        raise InputError(
            "E167", "--observations needs its set.", why=why, fix="Add --dataset NAME --root DIR --split S."
        )
    path = folder / "observations-given"
    if not (path / "identity.json").is_file():
        why = f"{path} is not there."
        raise InputError("E167", f"{folder} holds no observations.", why=why, fix="Run retclip eval --proposals given.")
    opened = open_evaluation_set(name, root, split)
    store = ObservationStore(path, codec.loads((path / "identity.json").read_bytes()))
    present = tuple(image for image in opened.images if image.image_id in store)
    return opened.vocabulary, from_observations(replace(opened, images=present), store)


def _show(outcomes: Sequence[Outcome], grid: dict[str, list[str]], found: Preset, speech: Speech) -> None:
    """The curve along every tried setting (best over all others), then the best settings."""
    from retclip.evaluation.tuning import best_of
    from retclip.presets import preset_to_mapping

    tried = list(zip(outcomes, itertools.product(*grid.values()), strict=True))
    points: list[dict[str, Any]] = []
    for position, (key, values) in enumerate(grid.items()):
        for value in values:
            top = best_of(outcome for outcome, chosen in tried if chosen[position] == value)
            points.append({"setting": key, "value": value, **_percent(top)})
    ranked = sorted(tried, key=lambda pair: (-pair[0].harmonic, -pair[0].stored))[:_SHOWN]
    best = [{"settings": dict(zip(grid, chosen, strict=True)), **_percent(outcome)} for outcome, chosen in ranked]
    document = {"curve": points, "best": best, "preset": preset_to_mapping(found), "tried": len(outcomes)}
    rows = [[str(cell) for cell in point.values()] for point in points]
    for outcome, chosen in ranked:
        settings = " ".join(f"{key}={value}" for key, value in zip(grid, chosen, strict=True))
        rows.append(["best", settings, *map(str, _percent(outcome).values())])
    columns = ("setting", "value", "stored ", "absent ", "harmonic ")
    speech.data(document, make_table(columns, rows, "PQ of annotated masks, percent"))


def _percent(outcome: Outcome) -> dict[str, float | None]:
    from retclip.evaluation.figures import percent

    return {key: percent(getattr(outcome, key)) for key in ("stored", "absent", "harmonic")}
