"""Carries out trials on the world of a seed, with the functions behind `retclip eval`; networks run once a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from benchmarks.playground.trials import GRID, ProposalKind, Trial
from benchmarks.playground.world import GROUPS, IS_THING, SEEN, VOCABULARY, World
from retclip.assembly import make_models
from retclip.core.files import prepare_folder, write_json
from retclip.evaluation.figures import percent
from retclip.evaluation.held_out import OwnPicture, from_database
from retclip.evaluation.labelling import Labeller, LabelSettings
from retclip.evaluation.oracles import TrueMasks
from retclip.evaluation.reliability import fit_reliability, nearest_is_right
from retclip.evaluation.session import ObservedSource, observe_all, score
from retclip.evaluation.tally import ImageRow, Tally
from retclip.presets import Preset
from retclip.query.matching import match_labels
from retclip.query.observations import ObservationStore
from retclip.query.pipeline import RetrievalSegmenter
from retclip.shards import Database

METRICS = ("pq", "map", "miou")

Counts = npt.NDArray[np.float64]
Figures = dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Outcome:
    """What one trial gave on the pictures of one seed.

    Attributes:
        figures: metric -> group of classes -> percent, None where nothing can be averaged.
        label_accuracy: percent of the segments found in their place that carry the right class.
        counts: (I, 4, C) iou, tp, fp, fn of every picture, for resampling.
    """

    figures: Figures
    label_accuracy: float | None
    counts: Counts

    def write(self, path: Path, trial: Trial) -> None:
        """Keep it; classes that do not occur in a picture are left out."""
        rows = []
        for table in self.counts:
            columns = np.flatnonzero(table.any(axis=0))
            rows.append([columns.tolist(), table[:, columns].tolist()])
        fixed = {"trial": asdict(trial), "figures": self.figures, "label_accuracy": self.label_accuracy}
        write_json(path, {**fixed, "counts": rows})

    @classmethod
    def read(cls, path: Path) -> Self:
        """Take up what `write` kept."""
        found = json.loads(path.read_bytes())
        counts = np.zeros((len(found["counts"]), 4, len(VOCABULARY)))
        for table, (columns, values) in zip(counts, found["counts"], strict=True):
            table[:, columns] = values
        return cls(found["figures"], found["label_accuracy"], counts)


def observations(world: World, kind: ProposalKind) -> ObservationStore:
    """What the networks say of the pictures of domain A with one kind of proposals."""
    return ObservationStore(world.folder / "observed" / kind, {"proposals": kind})


def observe(world: World, kind: ProposalKind) -> None:
    """Ask the networks about the pictures that were not asked about before."""
    dataset = world.pictures_of("a")
    preset = replace(world.preset, proposals=replace(world.preset.proposals, grid=GRID)).with_proposals(kind)

    def networks() -> RetrievalSegmenter:
        models = make_models(preset, TrueMasks(dataset) if kind == "given" else None, "cpu")
        return RetrievalSegmenter(models, Database.open(world.database_path("a")), VOCABULARY, preset)

    observe_all(dataset, observations(world, kind), networks, _silent)


def outcome_path(world: World, trial: Trial) -> Path:
    """Where the outcome of a trial is kept."""
    return world.folder / "outcomes" / f"{trial.key}.json"


def measure(world: World, trial: Trial) -> None:
    """Label and count the observed pictures as a trial says, and keep the outcome."""
    outcome = counted(world, trial, Database.open(world.database_path(trial.database)))
    path = outcome_path(world, trial)
    prepare_folder(path.parent)
    outcome.write(path, trial)


def counted(world: World, trial: Trial, database: Database) -> Outcome:
    """Label and count the observed pictures with a database, as `retclip eval` does."""
    preset = trial.preset(world.preset)
    if trial.fitted:
        preset = with_reliability(preset, database)
    labels = match_labels(VOCABULARY, database.classes)
    labeller = Labeller(database, LabelSettings(labels, VOCABULARY, preset, tuple(SEEN.tolist())))
    source = ObservedSource(observations(world, trial.proposals), labeller)
    return outcome_of(score(world.pictures_of("a"), lambda: source, 1, _silent))


def _silent(done: int, total: int) -> None:
    """Progress is told by the task, not by the picture."""


def outcome_of(tally: Tally) -> Outcome:
    """What stays of a run."""
    assert tally.precision is not None  # the playground knows instances
    panoptic, semantic = tally.panoptic(), tally.confusion.result()
    precision = np.full(len(VOCABULARY), np.nan)
    precision[IS_THING] = tally.precision.result().ap
    defined = precision >= 0
    figures: Figures = {metric: {} for metric in METRICS}
    for group, chosen in GROUPS.items():
        average = precision[chosen & defined].mean() if (chosen & defined).any() else np.nan
        values = panoptic.mean(chosen).pq, float(average), semantic.mean(chosen)
        for metric, value in zip(METRICS, values, strict=True):
            figures[metric][group] = percent(value)
    placed, named = sum(row.placed for row in tally.rows), sum(row.named for row in tally.rows)
    accuracy = percent(named / placed) if placed else None
    return Outcome(figures, accuracy, np.stack([_spread(row) for row in tally.rows]))


def _spread(row: ImageRow) -> Counts:
    table = np.zeros((4, len(VOCABULARY)))
    table[:, row.columns] = row.counts
    return table


def with_reliability(preset: Preset, database: Database) -> Preset:
    """The preset with the reliability that the database's own segments give, each without its own picture."""
    labels = match_labels(VOCABULARY, database.classes)
    own = from_database(database, labels, database.image_count)
    hits = OwnPicture(database, own.digests).hits(own, labels, preset.retrieval)
    fitted = fit_reliability(*nearest_is_right(hits, own.column))
    return replace(preset, fusion=replace(preset.fusion, reliability=fitted))
