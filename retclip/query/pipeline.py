"""The walk of a segmentation: pictures -> proposals and features -> three questions -> one table -> one map."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.results import SegmentationResult
from retclip.core.vocabulary import Vocabulary
from retclip.ports.encoders import DenseEncoder, TextEncoder, embed_regions
from retclip.ports.neighbors import NeighborIndex
from retclip.ports.proposals import MaskProposer, Proposals
from retclip.presets import Preset
from retclip.query.kept_texts import KeptTexts
from retclip.query.merge import merge_panoptic, semantic_map, thing_instances
from retclip.query.provenance import Evidence, explain
from retclip.query.question import TrainedHead, pose, refuse_other_space
from retclip.query.scoring import Observation
from retclip.query.similarity import TextSimilarity


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
        refuse_other_space(index, models.encoder.space)
        self._models = models
        self._similarity = TextSimilarity(models.text) if models.text is not None else None
        self.question = pose(index, vocabulary, preset, models.text, models.head)
        self.vocabulary = self.question.vocabulary
        self.seen = list(self.question.seen)

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
        missing = [match.requested for match in self.question.labels.matches if match.method == "none"]
        if missing:
            shown = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            notes.append(f"Without exemplars in '{self.question.index.name}': {shown}.")
        for label, candidates in self.question.labels.ambiguous:
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
            began = time.perf_counter() - shared
            results.append(self.label(picture, found.masks, self.question.weigh(observation), began))
        return results

    def observe(self, picture: Picture) -> tuple[MaskSet, Observation]:
        """Proposals of a picture and what the networks say of them; the database is not asked."""
        proposals = self._models.proposer.propose([picture], self.vocabulary)
        return proposals[0].masks, self._observe([picture], proposals)[0]

    def keep_texts(self) -> KeptTexts | None:
        """Rows of the text tower for the asked classes and the stored ones that share no name with them."""
        if self._models.text is None:
            return None
        question = self.question
        left = [item.name for item in question.index.classes if item.id not in question.labels.column]
        matched = [name for match in question.labels.matches if match.method == "text" for name in match.stored]
        names = [name for category in self.vocabulary for name in category.names]
        return KeptTexts.of(self._models.text, [*names, *left, *matched])

    def score(self, keys: Tensor) -> Evidence:
        """Ask the database and the text tower about unit key vectors (N, D) of one image."""
        return self.question.weigh(Observation(keys, self._similar(keys)))

    def label(self, picture: Picture, masks: MaskSet, evidence: Evidence, began: float) -> SegmentationResult:
        """The result for an observed picture; its time counts from `began` on, a value of `time.perf_counter`."""
        scores, merge = evidence.fused.scores, self.question.preset.merge
        merged = merge_panoptic(masks, scores, evidence.experts.void, self.vocabulary, merge)
        return SegmentationResult(
            image=picture.name,
            image_sha256=picture.sha256,
            panoptic=merged.panoptic,
            explanations=explain(evidence, merged.panoptic.segments, merged.proposals),
            semantic=semantic_map(masks, scores),
            instances=thing_instances(masks, scores, self.vocabulary, merge.max_instances),
            vocabulary=self.vocabulary,
            run=self.run,
            seconds=time.perf_counter() - began,
        )

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

    @property
    def run(self) -> Mapping[str, Any]:
        """Settings and identities that results carry."""
        return self.question.run
