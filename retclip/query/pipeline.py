"""The walk of a segmentation: pictures -> proposals and features -> three questions -> one table -> one map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from retclip import __version__
from retclip.core.errors import DatabaseError, EmptyDatabase, FeatureSpaceMismatch
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.results import SegmentationResult
from retclip.core.segments import Neighbors
from retclip.core.vocabulary import Vocabulary, seen_classes
from retclip.ports.encoders import DenseEncoder, TextEncoder, embed_regions
from retclip.ports.neighbors import NeighborIndex
from retclip.ports.proposals import MaskProposer, Proposals
from retclip.presets import Preset
from retclip.query.matching import LabelMap, match_labels, with_stored_kinds
from retclip.query.merge import merge_panoptic, semantic_map, thing_instances
from retclip.query.provenance import Evidence, explain
from retclip.query.scoring import AskedClasses, Hits, Observation, weigh
from retclip.query.similarity import TextSimilarity


@dataclass(frozen=True)
class TrainedHead:
    """What gives in-vocabulary scores: every class name it was trained with, and the digest of its weights file."""

    training_names: frozenset[str]
    weights_sha256: str


@dataclass(frozen=True)
class Models:
    """The networks of a segmenter.

    Attributes:
        encoder, proposer: where keys and regions come from.
        text: the encoder's text tower, None where it has none.
        head: the proposer's own classifier, None where it has none.
    """

    encoder: DenseEncoder
    proposer: MaskProposer
    text: TextEncoder | None = None
    head: TrainedHead | None = None


class RetrievalSegmenter:
    """Labels the proposals of any picture with the classes of one vocabulary.

    Vocabulary and database are fixed at construction, so labels are matched once for all pictures.

    Raises:
        FeatureSpaceMismatch: the encoder is not the one the database was built with.
        EmptyDatabase: the database holds no segment.
        DatabaseError: E309, none of the asked classes is stored and there is no text tower.
    """

    def __init__(self, models: Models, index: NeighborIndex, vocabulary: Vocabulary, preset: Preset) -> None:
        if index.space != models.encoder.space:
            raise FeatureSpaceMismatch(
                index.name,
                index.space.encoder,
                models.encoder.space.encoder,
                index.space.differences(models.encoder.space),
            )
        if not index.classes:
            raise EmptyDatabase(index.name, index.version)
        self._models = models
        self._index = index
        self._preset = preset
        self._similarity = TextSimilarity(models.text) if models.text is not None else None
        self.seen = seen_classes(vocabulary, models.head.training_names if models.head else ())
        self.labels: LabelMap = match_labels(vocabulary, index.classes, models.text, preset.retrieval.label_match)
        self.vocabulary = with_stored_kinds(vocabulary, index.classes, self.labels)
        if not self.labels.column and models.text is None:
            shown = ", ".join(vocabulary.names[:5])
            raise DatabaseError(
                "E309",
                f"Database '{index.name}' has none of the asked classes ({shown}).",
                why="The encoder has no text tower, so a class needs exemplars.",
                fix=f"retclip index add-classes --db {index.name} --classes ... --images DIR",
            )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should be told once: experts that cannot vote, and labels that names alone did not decide."""
        notes = []
        if self._models.text is None:
            notes.append("The encoder has no text tower: labels come from retrieval alone (gamma is 1).")
        if self._models.head is not None:
            notes.append(f"{sum(self.seen)} of {len(self.seen)} asked classes were seen in training: alpha, else beta.")
        else:
            notes.append("No in-vocabulary head in this preset: alpha and beta play no part.")
        missing = [match.requested for match in self.labels.matches if match.method == "none"]
        if missing:
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            notes.append(f"Without exemplars in '{self._index.name}': {shown}.")
        for label, candidates in self.labels.ambiguous:
            notes.append(
                f"Stored class '{label}' fits {' and '.join(repr(c) for c in candidates)}; '{candidates[0]}' is used."
            )
        return tuple(notes)

    def segment(self, pictures: Sequence[Picture]) -> list[SegmentationResult]:
        """Segment pictures, one encoder pass each."""
        start = time.perf_counter()
        proposals = self._models.proposer.propose(pictures, self.vocabulary)
        observations = self._observe(pictures, proposals)
        shared = (time.perf_counter() - start) / max(1, len(pictures))
        results = []
        for picture, found, observation in zip(pictures, proposals, observations, strict=True):
            began = time.perf_counter()
            results.append(self._result(picture, found.masks, self.weigh(observation), began - shared))
        return results

    def observe(self, picture: Picture) -> tuple[MaskSet, Observation]:
        """Proposals of a picture and what the networks say of them; the database is not asked."""
        proposals = self._models.proposer.propose([picture], self.vocabulary)
        return proposals[0].masks, self._observe([picture], proposals)[0]

    def score(self, keys: Tensor) -> Evidence:
        """Ask the database and the text tower about unit key vectors (N, D) of one image."""
        return self.weigh(Observation(keys, self._similar(keys)))

    def weigh(self, observation: Observation) -> Evidence:
        """Ask the database about the observed proposals of one image, and fuse."""
        neighbors = find_neighbors(self._index, self.labels, observation.keys, self._preset)
        hits = hits_of(neighbors, self.labels, observation.keys.device)
        asked = asked_classes(self.labels, len(self.vocabulary), torch.tensor(self.seen))
        experts, fused = weigh(observation, hits, asked, self._preset)
        return Evidence(experts, fused, neighbors, self.labels, self.vocabulary, self._index)

    def _similar(self, keys: Tensor) -> Tensor | None:
        return self._similarity.scores(keys, self.vocabulary) if self._similarity else None

    def _observe(self, pictures: Sequence[Picture], proposals: Sequence[Proposals]) -> list[Observation]:
        """Keys and scores of all proposals; the encoder runs for pictures whose proposals carry no keys."""
        unknown = [p.pixels for p, found in zip(pictures, proposals, strict=True) if found.keys is None]
        features = iter(self._models.encoder.encode_images(unknown) if unknown else ())
        observations = []
        for found in proposals:
            keys = found.keys
            if keys is None:
                keys = embed_regions(self._models.encoder, next(features), found.masks.for_pooling())
            # CLIP speaks of every region, as released; a region without a feature cell resembles nothing stored.
            looked_up = keys if found.valid is None else keys * found.valid[:, None]
            observations.append(Observation(looked_up, self._similar(keys), found.in_vocab, found.void, found.valid))
        return observations

    def _result(self, picture: Picture, masks: MaskSet, evidence: Evidence, began: float) -> SegmentationResult:
        scores = evidence.fused.scores
        merged = merge_panoptic(masks, scores, evidence.experts.void, self.vocabulary, self._preset.merge)
        return SegmentationResult(
            image=picture.name,
            image_sha256=picture.sha256,
            panoptic=merged.panoptic,
            explanations=explain(evidence, merged.panoptic.segments, merged.proposals),
            semantic=semantic_map(masks, scores),
            instances=thing_instances(masks, scores, self.vocabulary, self._preset.merge.max_instances),
            vocabulary=self.vocabulary,
            run=self.run,
            seconds=time.perf_counter() - began,
        )

    @property
    def run(self) -> Mapping[str, Any]:
        """Settings and identities that results carry."""
        return {
            "retclip": __version__,
            "preset": self._preset.name,
            "db": list(self._index.databases),
            "proposals": asdict(self._preset.proposals),
            "head": self._models.head and {"weights_sha256": self._models.head.weights_sha256},
            "retrieval": asdict(self._preset.retrieval),
            "fusion": asdict(self._preset.fusion),
            "merge": asdict(self._preset.merge),
            "vocabulary": {"name": self.vocabulary.name, "classes": len(self.vocabulary), "seen": sum(self.seen)},
        }


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
