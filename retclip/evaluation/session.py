"""The walk of an evaluation: observe every picture once, guard against leaks, label and count."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from retclip.core.errors import InputError
from retclip.core.images import Picture, read_picture
from retclip.core.masks import MaskSet
from retclip.evaluation.labelling import Labeller, LabelSettings
from retclip.evaluation.leakage import Leak, LeakGuard
from retclip.evaluation.prediction import PredictedFolder, Prediction
from retclip.evaluation.tally import Tally
from retclip.evaluation.truth import EvaluationSet, TruthImage, TruthMap
from retclip.query.observations import ObservationStore, ObservedImage
from retclip.query.scoring import Observation
from retclip.shards import Database
from retclip.shards.layers import Layering, reopen

Progress = Callable[[int, int], None]


class Observer(Protocol):
    """The networks: proposals of a picture and what they say of them."""

    def observe(self, picture: Picture) -> tuple[MaskSet, Observation]:
        """Proposals and observation of one picture."""
        ...


class Source(Protocol):
    """Anything that predicts pictures; only oracles look at the truth."""

    def predict(self, image: TruthImage, truth: TruthMap) -> Prediction:
        """The prediction of one picture."""
        ...


@dataclass(frozen=True)
class ObservedSource:
    """Predictions from stored observations."""

    store: ObservationStore
    labeller: Labeller

    def predict(self, image: TruthImage, truth: TruthMap) -> Prediction:
        """Load what the networks said and label it. Raises InputError E161 when photo and annotation differ in size."""
        observed = self.store.load(image.image_id)
        if truth.ids.shape != observed.masks.image_size:
            why = f"The annotation has {truth.ids.shape} pixels (height, width), the photo {observed.masks.image_size}."
            raise InputError("E161", f"The truth of {image.path.name} does not fit.", why=why, fix="Check both files.")
        return self.labeller.predict(observed, truth, "retclip")


@dataclass(frozen=True)
class OpenObserved:
    """How another process opens an `ObservedSource`; databases do not travel, their places do."""

    folder: Path
    identity: Mapping[str, Any]
    databases: tuple[tuple[Path, int], ...]
    layering: Layering
    settings: LabelSettings

    def __call__(self) -> ObservedSource:
        """Open database and store."""
        index = reopen(self.databases, self.layering)
        return ObservedSource(ObservationStore(self.folder, self.identity), Labeller(index, self.settings))


@dataclass(frozen=True)
class OpenPredicted:
    """How a process opens foreign predictions."""

    folder: Path
    dataset: EvaluationSet

    def __call__(self) -> PredictedFolder:
        """Open the folder."""
        return PredictedFolder(self.folder, self.dataset)


def observe_all(
    dataset: EvaluationSet, store: ObservationStore, observer: Callable[[], Observer], progress: Progress
) -> None:
    """Observe the pictures that the store lacks; the observer is made only if there is one.

    Raises:
        InputError: for the first picture that cannot be read: an evaluation without it would be another one.
    """
    missing = [image for image in dataset.images if image.image_id not in store]
    networks = observer() if missing else None
    for done, image in enumerate(missing, start=1):
        assert networks is not None
        picture = read_picture(image.path)
        masks, observation = networks.observe(picture)
        store.store(image.image_id, ObservedImage(picture.sha256, masks, observation))
        progress(done, len(missing))


def find_leaks(dataset: EvaluationSet, store: ObservationStore, databases: Sequence[Database]) -> list[Leak]:
    """Evaluation pictures that one of the databases knows."""
    guards, leaks = [LeakGuard(database) for database in databases], []
    for image in dataset.images:
        sha256, keys = store.load_keys(image.image_id)
        found = (guard.check(image.path.name, sha256, keys) for guard in guards)
        leaks += [leak for leak in found if leak][:1]
    return leaks


def score(dataset: EvaluationSet, open_source: Callable[[], Source], workers: int, progress: Progress) -> Tally:
    """Predict and count every picture, in `workers` processes.

    Pictures are dealt in runs of neighbours and joined in their order, so figures do not depend on timing; sums of IoU
    may differ between numbers of workers in the last bits.
    """
    if workers <= 1:
        return _score_part(dataset, open_source, progress)
    size = -(-len(dataset.images) // workers)
    parts = [
        replace(dataset, images=dataset.images[start : start + size]) for start in range(0, len(dataset.images), size)
    ]
    tally, done = Tally(dataset), 0
    # A forked child would inherit torch's thread pools in an unknown state.
    with ProcessPoolExecutor(len(parts), multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(_score_part, parts, [open_source] * len(parts)):
            tally.merge(part)
            done += len(part.rows)
            progress(done, len(dataset.images))
    return tally


def _score_part(dataset: EvaluationSet, open_source: Callable[[], Source], progress: Progress | None = None) -> Tally:
    source, tally = open_source(), Tally(dataset)
    for done, image in enumerate(dataset.images, start=1):
        truth = dataset.truth(image)
        tally.add(image, truth, source.predict(image, truth))
        if progress is not None:
            progress(done, len(dataset.images))
    return tally


def protocol_name(
    dataset: EvaluationSet, databases: Sequence[Database], trained_head: bool, oracles: frozenset[str]
) -> str:
    """Which of the field's protocols a run follows; figures of different ones must not stand in one column.

    `target-train database`: the database holds pictures of the collection that is evaluated; `foreign database`: it
    does not; `training-free`: no head was trained on masks.
    """
    if not databases:
        return "foreign predictions"
    own = dataset.corpus and any(dataset.corpus in database.sources for database in databases)
    parts = ["target-train database" if own else "foreign database"]
    if not trained_head:
        parts.append("training-free")
    if oracles:
        parts.append(f"oracle ({', '.join(sorted(oracles))})")
    return ", ".join(parts)


def dataset_identity(dataset: EvaluationSet) -> Mapping[str, Any]:
    """What a report says of the set: name, split, pictures scored, and a digest of its annotation and their ids."""
    ids = hashlib.sha256("\n".join(image.image_id for image in dataset.images).encode()).hexdigest()
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset.images),
        "missing_images": len(dataset.missing),
        "annotations_sha256": dataset.sha256,
        "image_ids_sha256": ids,
        "vocabulary": {"name": dataset.vocabulary.name, "classes": len(dataset.vocabulary)},
    }
