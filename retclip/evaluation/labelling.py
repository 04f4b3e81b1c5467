"""Observed pictures -> predictions: the second half of the query pipeline, with or without oracles."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Vocabulary
from retclip.evaluation.oracles import best_proposals, only_present, present_columns, restrict, true_labels
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.evaluation.prediction import Prediction
from retclip.evaluation.truth import TruthMap
from retclip.ports.neighbors import NeighborIndex
from retclip.presets import Preset
from retclip.query.matching import LabelMap
from retclip.query.merge import merge_panoptic, semantic_map, thing_instances
from retclip.query.observations import ObservedImage
from retclip.query.question import asked_classes, find_neighbors, hits_of
from retclip.query.scoring import Hits, Observation, weigh


@dataclass(frozen=True)
class LabelSettings:
    """What a labeller needs beside a database; plain values that travel between processes.

    Attributes:
        labels: which stored classes answer for which columns.
        seen: (C,) bool, classes of the trained head; only used where observations carry its scores.
        oracles: names from `oracle_names.ORACLES`; `masks` is a matter of proposals and changes nothing here.
    """

    labels: LabelMap
    vocabulary: Vocabulary
    preset: Preset
    seen: tuple[bool, ...]
    oracles: frozenset[str] = frozenset()


class Labeller:
    """Labels observed pictures with one database version, vocabulary and preset; no network is asked."""

    def __init__(self, index: NeighborIndex, settings: LabelSettings) -> None:
        self._index = index
        self._labels, self._vocabulary, self._preset = settings.labels, settings.vocabulary, settings.preset
        self._oracles = settings.oracles
        self._seen = torch.tensor(settings.seen)

    def predict(self, image: ObservedImage, truth: TruthMap, origin: str) -> Prediction:
        """The prediction of one picture; the truth is looked at by oracles only."""
        masks, observation = image.masks, image.observation
        if "selection" in self._oracles:
            rows = best_proposals(masks, truth)
            masks, observation = masks.select(rows), observation.select(rows)
        scores, void = self.scores(observation, truth)
        if "labels" in self._oracles:
            scores = true_labels(masks, scores, truth)
        return self._merged(masks, scores, void, origin)

    def scores(self, observation: Observation, truth: TruthMap) -> tuple[Tensor, Tensor | None]:
        """Fused scores (N, C) and void (N,) of one picture's proposals."""
        labels = self._labels
        if "vocabulary" in self._oracles:
            labels = only_present(labels, truth)
            observation = restrict(observation, present_columns(truth))
        classes = asked_classes(labels, len(self._vocabulary), self._seen)
        experts, fused = weigh(observation, self.hits(observation.keys, labels), classes, self._preset)
        return fused.scores, experts.void

    def hits(self, keys: Tensor, labels: LabelMap) -> Hits:
        """Neighbours among the matched classes; one empty place each where no class is matched."""
        if not labels.column or not len(keys):
            return Hits(torch.full((len(keys), 1), torch.inf), torch.full((len(keys), 1), -1))
        return hits_of(find_neighbors(self._index, labels, keys, self._preset), labels, keys.device)

    def _merged(self, masks: MaskSet, scores: Tensor, void: Tensor | None, origin: str) -> Prediction:
        merged = merge_panoptic(masks, scores, void, self._vocabulary, self._preset.merge)
        segments = merged.panoptic.segments
        return Prediction(
            ids=merged.panoptic.ids,
            segments=tuple(MapSegment(segment.id, segment.category_id) for segment in segments),
            scores=tuple(min(1.0, segment.score) for segment in segments),
            semantic=semantic_map(masks, scores),
            instances=thing_instances(masks, scores, self._vocabulary, self._preset.merge.max_instances),
            origin=origin,
        )
