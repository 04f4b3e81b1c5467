"""Where the predictions of an evaluation come from: a database with its networks, or another program's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retclip.cli.console import Speech
from retclip.cli.options import proposed

if TYPE_CHECKING:
    from retclip.evaluation.leakage import Leak
    from retclip.evaluation.session import Source
    from retclip.evaluation.tally import Tally
    from retclip.evaluation.truth import EvaluationSet
    from retclip.presets import Preset
    from retclip.query.observations import ObservationStore
    from retclip.shards import Database
    from retclip.shards.layers import LayeredIndex, Layering


@dataclass(frozen=True)
class Asked:
    """What one invocation asks for."""

    out: Path
    proposals: str
    oracles: frozenset[str]
    device: str
    workers: int
    allow_leak: bool
    seen_file: str | None
    resamples: int
    layering: Layering
    speech: Speech

    @property
    def given(self) -> bool:
        """The annotated masks are the proposals."""
        return self.proposals == "given" or "masks" in self.oracles


@dataclass(frozen=True)
class Ready:
    """A source of predictions, with what the report says of it."""

    source: Source
    tally: Tally
    leaks: tuple[Leak, ...]
    seen_by_default: frozenset[int]
    trained_head: bool


def score_foreign(dataset: EvaluationSet, folder: Path, asked: Asked) -> Ready:
    """Score another program's folder, see `PredictedFolder`."""
    from retclip.evaluation.session import OpenPredicted, score

    opener = OpenPredicted(folder, dataset)
    source = opener()
    with asked.speech.progress("score", "pictures") as line:
        tally = score(dataset, opener, asked.workers, line.update)
    return Ready(source, tally, (), frozenset(range(len(dataset.vocabulary))), True)


def score_database(dataset: EvaluationSet, database: Database | LayeredIndex, preset: Preset, asked: Asked) -> Ready:
    """Observe the pictures that were not observed before, refuse leaks, label and count."""
    from retclip.assembly import LabelMatcher, trained_head
    from retclip.core.vocabulary import seen_classes
    from retclip.evaluation.datasets import load_seen_classes, seen_list_of
    from retclip.evaluation.labelling import LabelSettings
    from retclip.evaluation.leakage import refuse
    from retclip.evaluation.session import OpenObserved, find_leaks, score
    from retclip.shards.layers import layers_of

    preset = proposed(preset, "given" if asked.given else asked.proposals)
    head = trained_head(preset)
    identity = _identity(dataset, database, preset)
    if head is not None:
        identity = {**identity, "head": head.weights_sha256}
    store = _observe(dataset, database, preset, asked, identity)
    leaks = find_leaks(dataset, store, layers_of(database))
    if not asked.allow_leak:
        refuse(leaks, database.name)
    labels = LabelMatcher(preset, asked.device).match(dataset.vocabulary, database.classes)
    listed = seen_list_of(dataset.name)
    trained = load_seen_classes(listed, dataset.vocabulary) if listed else frozenset[int]()
    own = seen_classes(dataset.vocabulary, head.training_names) if head is not None else None
    seen = tuple(own or (column in trained for column in range(len(dataset.vocabulary))))
    settings = LabelSettings(labels, dataset.vocabulary, preset, seen, asked.oracles)
    places = tuple((layer.path, layer.version) for layer in layers_of(database))
    opener = OpenObserved(store.folder, identity, places, asked.layering, settings)
    with asked.speech.progress("label and count", "pictures") as line:
        tally = score(dataset, opener, asked.workers, line.update)
    return Ready(opener(), tally, tuple(leaks), frozenset(labels.column.values()), head is not None)


def look_for_networks(preset: Preset, asked: Asked) -> None:
    """Raise ModelError for networks of an evaluation that are not on this machine."""
    from retclip.adapters.model_files import find_models
    from retclip.presets.model_cards import segmenting_roles

    find_models(preset, segmenting_roles(proposed(preset, "given" if asked.given else asked.proposals)))


def _observe(
    dataset: EvaluationSet, database: Database | LayeredIndex, preset: Preset, asked: Asked, identity: Mapping[str, Any]
) -> ObservationStore:
    """What the networks say of every picture; they are made only for pictures that were not observed before."""
    from retclip.assembly import make_models
    from retclip.evaluation.oracles import TrueMasks
    from retclip.evaluation.session import observe_all
    from retclip.query.observations import ObservationStore
    from retclip.query.pipeline import RetrievalSegmenter

    def observer() -> RetrievalSegmenter:
        models = make_models(preset, TrueMasks(dataset) if asked.given else None, asked.device)
        return RetrievalSegmenter(models, database, dataset.vocabulary, preset)

    store = ObservationStore(asked.out / ("observations-given" if asked.given else "observations"), identity)
    with asked.speech.progress("observe", "pictures") as line:
        observe_all(dataset, store, observer, line.update)
    return store


def _identity(dataset: EvaluationSet, database: Database | LayeredIndex, preset: Preset) -> Mapping[str, Any]:
    """What stored observations depend on: networks, proposals, class list, and the pictures' set; not the database."""
    from retclip.presets.model_cards import segmenting_roles

    # The feature space stands for the encoder; detector and masker count where they make the proposals.
    others: dict[str, Any] = {
        role: asdict(getattr(preset, role)) for role in segmenting_roles(preset) if role != "encoder"
    }
    return {
        "schema": "retclip.observations/1",
        "feature_space": database.space.fingerprint,
        "proposals": "given" if preset.proposals.kind == "given" else asdict(preset.proposals),
        **others,
        "dataset": {"name": dataset.name, "split": dataset.split, "annotations_sha256": dataset.sha256},
        "vocabulary": [list(category.names) for category in dataset.vocabulary],
    }
