"""One question: which classes are asked of which database version, and how scores are weighed. It needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip import __version__
from retclip.core.errors import DatabaseError, EmptyDatabase, FeatureSpaceMismatch
from retclip.core.identity import FeatureSpace
from retclip.core.segments import Neighbors
from retclip.core.vocabulary import Vocabulary, seen_classes
from retclip.ports.encoders import TextEncoder
from retclip.ports.neighbors import NeighborIndex
from retclip.presets import Preset
from retclip.query.matching import LabelMap, match_labels, with_stored_kinds
from retclip.query.provenance import Evidence
from retclip.query.scoring import AskedClasses, Hits, Observation, weigh_pictures


@dataclass(frozen=True)
class TrainedHead:
    """What gives in-vocabulary scores: every class name it was trained with, and the digest of its weights file."""

    training_names: frozenset[str]
    weights_sha256: str


@dataclass(frozen=True)
class Question:
    """What is asked; labels are matched once for all pictures.

    Attributes:
        index: the database version, or several.
        vocabulary: asked classes, things and stuff as the database knows them where the list does not say.
        as_asked: the same classes as the list gives them.
        labels: which stored classes answer for which columns.
        seen: per class, whether the trained head knows it; all False without one.
        preset: how neighbours become scores and scores become labels.
        head: the trained head, None without one.
    """

    index: NeighborIndex
    vocabulary: Vocabulary
    as_asked: Vocabulary
    labels: LabelMap
    seen: tuple[bool, ...]
    preset: Preset
    head: TrainedHead | None

    def weigh(self, observation: Observation) -> Evidence:
        """Ask the database about the observed proposals of one picture, and fuse."""
        return self.weigh_all([observation])[0]

    def weigh_all(self, observations: Sequence[Observation], found: Neighbors | None = None) -> list[Evidence]:
        """The same for many pictures with one search, which costs little more than for one.

        Args:
            observations: at least one.
            found: the neighbours of all, below one another, where they are known.
        """
        keys = torch.cat([observation.keys for observation in observations])
        found = find_neighbors(self.index, self.labels, keys, self.preset) if found is None else found
        asked = asked_classes(self.labels, len(self.vocabulary), torch.tensor(self.seen))
        weighed = weigh_pictures(observations, hits_of(found, self.labels, keys.device), asked, self.preset)
        evidence, start = [], 0
        for observation, (experts, fused) in zip(observations, weighed, strict=True):
            neighbors = found.rows(slice(start, start + len(observation.keys)))
            start += len(observation.keys)
            evidence.append(Evidence(experts, fused, neighbors, self.labels, self.vocabulary, self.index))
        return evidence

    @property
    def run(self) -> Mapping[str, Any]:
        """Settings and identities that results carry."""
        return {
            "retclip": __version__,
            "preset": self.preset.name,
            "db": list(self.index.databases),
            "proposals": asdict(self.preset.proposals),
            "head": self.head and {"weights_sha256": self.head.weights_sha256},
            "retrieval": asdict(self.preset.retrieval),
            "fusion": asdict(self.preset.fusion),
            "merge": asdict(self.preset.merge),
            "vocabulary": {"name": self.vocabulary.name, "classes": len(self.vocabulary), "seen": sum(self.seen)},
        }


def refuse_other_space(index: NeighborIndex, space: FeatureSpace) -> None:
    """Raise FeatureSpaceMismatch when the database was not built with the encoder of `space`."""
    if index.space != space:
        raise FeatureSpaceMismatch(index.name, index.space.encoder, space.encoder, index.space.differences(space))


def pose(
    index: NeighborIndex,
    vocabulary: Vocabulary,
    preset: Preset,
    text: TextEncoder | None = None,
    head: TrainedHead | None = None,
) -> Question:
    """A question about a database.

    Args:
        text: matches classes that share no name, None without a text tower.
        head: the trained head, which saw some of the classes.

    Raises:
        EmptyDatabase: the database holds no segment.
        DatabaseError: E309, none of the asked classes is stored and there is no text tower.
    """
    if not index.classes:
        raise EmptyDatabase(index.name, index.version)
    labels = match_labels(vocabulary, index.classes, text, preset.retrieval.label_match)
    if not labels.column and text is None:
        shown = ", ".join(vocabulary.names[:5])
        raise DatabaseError(
            "E309",
            f"Database '{index.name}' has none of the asked classes ({shown}).",
            why="The encoder has no text tower, so a class needs exemplars.",
            fix=f"retclip index add-classes --db {index.name} --classes ... --images DIR",
        )
    seen = tuple(seen_classes(vocabulary, head.training_names if head else ()))
    kinds_known = with_stored_kinds(vocabulary, index.classes, labels)
    return Question(index, kinds_known, vocabulary, labels, seen, preset, head)


def find_neighbors(index: NeighborIndex, labels: LabelMap, keys: Tensor, preset: Preset) -> Neighbors:
    """Nearest stored segments of the asked classes for key vectors (N, D), as the preset's retrieval says.

    A key of length zero (a region without features) has no neighbours.
    """
    retrieval = preset.retrieval
    transform = None if retrieval.transform == "database" else retrieval.transform
    queries = keys.cpu().numpy()
    usable: npt.NDArray[np.bool_] = (queries != 0).any(axis=1)
    found = index.search(queries[usable], retrieval.k, sorted(labels.column), retrieval.per_class_k or None, transform)
    if usable.all():
        return found

    def spread(values: npt.NDArray[Any], missing: float) -> npt.NDArray[Any]:
        rows = np.full((len(usable), retrieval.k), missing, values.dtype)
        rows[usable] = values
        return rows

    return Neighbors(
        spread(found.distance, np.inf),
        spread(found.class_id, -1),
        spread(found.shard, -1),
        spread(found.row, -1),
        spread(found.segment_id, 0),
    )


def hits_of(neighbors: Neighbors, labels: LabelMap, device: torch.device) -> Hits:
    """Neighbours with their classes as columns of the vocabulary."""
    table = np.full(max(labels.column, default=0) + 2, -1, dtype=np.int64)
    for class_id, column in labels.column.items():
        table[class_id] = column
    columns = torch.from_numpy(table[neighbors.class_id])
    return Hits(torch.from_numpy(neighbors.distance).to(device), columns.to(device))


def asked_classes(labels: LabelMap, count: int, seen: Tensor | None = None) -> AskedClasses:
    """Which of `count` classes have exemplars; none is seen without a trained head."""
    stored = torch.zeros(count, dtype=torch.bool)
    stored[sorted(set(labels.column.values()))] = True
    return AskedClasses(stored, torch.zeros(count, dtype=torch.bool) if seen is None else seen)
