"""Kept pictures labelled again, after any change of the database or of a setting, without a network."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.core.masks import MaskSet
from retclip.core.panoptic import PanopticMap
from retclip.core.results import SegmentationResult
from retclip.core.vocabulary import Vocabulary
from retclip.query.kept import KeptRun, PictureRecord
from retclip.query.kept_nearby import NearbySearch
from retclip.query.merge import Decision, Verdict, decide, semantic_map, thing_instances, verdict_of
from retclip.query.observations import ObservedImage
from retclip.query.provenance import Evidence, RememberedRecords, explain
from retclip.query.question import Question
from retclip.query.scoring import Observation
from retclip.query.similarity import TextSimilarity
from retclip.query.surfaces import AtomSurface, PixelSurface, Surface

BATCH = 64  # pictures that share a search: more cost memory and gain little


@dataclass(frozen=True)
class Rescored:
    """One picture labelled again.

    Attributes:
        before, after: its records; equal verdicts mean that no map had to be decided.
        evidence: scores of its proposals.
        decision: its map on atoms or pixels, None where none had to be decided.
        seconds: share of the time of its batch.
    """

    before: PictureRecord
    after: PictureRecord
    evidence: Evidence
    decision: Decision | None
    seconds: float

    @property
    def changed(self) -> bool:
        """Map or labels are others than before."""
        return self.before.outcome != self.after.outcome

    @property
    def moves(self) -> list[tuple[int, str | None, str | None]]:
        """(proposal, class before, class after) of every region whose class changed; None = it holds no pixels."""
        rows = sorted({*self.before.labels, *self.after.labels})
        pairs = [(row, self.before.labels.get(row), self.after.labels.get(row)) for row in rows]
        return [(row, old, new) for row, old, new in pairs if old != new]


class Rescorer:
    """Labels kept pictures by one question.

    Raises:
        InputError: E341 when the classes of the question need a network.
    """

    def __init__(self, kept: KeptRun, question: Question) -> None:
        refuse_other_classes(kept, question.as_asked)
        self.kept, self._question = kept, question
        self._same_classes = _names(question.as_asked) == _names(kept.facts.vocabulary)
        self._similarity = None if kept.texts is None else TextSimilarity(kept.texts)
        self._records = RememberedRecords(question.index)
        self._search = NearbySearch(kept.nearby, question)
        classes = [(category.id, category.name, category.is_thing) for category in question.vocabulary]
        self._frame = repr((classes, astuple(question.preset.merge))).encode()

    @cached_property
    def names_only(self) -> tuple[str, ...]:
        """Stored classes that a text tower might have matched, had it read their names before."""
        texts, answered = self.kept.texts, self._question.labels.column
        if texts is None:
            return ()
        return tuple(c.name for c in self._question.index.classes if c.id not in answered and c.name not in texts)

    def keep(self, picture: Picture, path: str, masks: MaskSet, observation: Observation, evidence: Evidence) -> None:
        """Store a picture that was just observed and weighed, with its labels."""
        self.kept.store.store(picture.name, ObservedImage(picture.sha256, masks, observation))
        self._search.keep(picture.name, observation.keys)
        new = PictureRecord(picture.name, path, picture.sha256, "", "", {})
        self.kept.records[picture.name], _ = self._judged(new, evidence)

    def rescore(self, batch: int = BATCH) -> Iterator[Rescored]:
        """Label every kept picture, in the order they were kept; records change when they are saved."""
        records = list(self.kept.records.values())
        for start in range(0, len(records), batch):
            began = time.perf_counter()
            part = records[start : start + batch]
            pairs = list(zip(part, self._weighed(part), strict=True))
            judged = [(record, evidence, *self._judged(record, evidence)) for record, evidence in pairs]
            seconds = (time.perf_counter() - began) / len(part)
            for before, evidence, after, decision in judged:
                yield Rescored(before, after, evidence, decision, seconds)

    def result(self, rescored: Rescored, with_layers: bool) -> SegmentationResult:
        """What a full run would return; `with_layers` adds the semantic map and instances, which take their time."""
        began = time.perf_counter() - rescored.seconds
        name, evidence, vocabulary = rescored.after.name, rescored.evidence, self._question.vocabulary
        decision = rescored.decision or self._decide(name, self._verdict(evidence))
        ids = decision.ids if decision.ids.ndim == 2 else decision.ids[self.kept.store.load_index(name)]
        masks = self.kept.store.load(name).masks if with_layers else None
        scores, most = evidence.fused.scores, self._question.preset.merge.max_instances
        return SegmentationResult(
            image=name,
            image_sha256=rescored.after.sha256,
            panoptic=PanopticMap(ids, decision.segments),
            explanations=explain(evidence, decision.segments, decision.proposals, self._records),
            semantic=None if masks is None else semantic_map(masks, scores),
            instances=None if masks is None else thing_instances(masks, scores, vocabulary, most),
            vocabulary=vocabulary,
            run=self._question.run,
            seconds=time.perf_counter() - began,
        )

    def _weighed(self, records: Sequence[PictureRecord]) -> list[Evidence]:
        observed = [self.kept.store.load_outline(record.name).observation for record in records]
        found = self._search.neighbors([record.name for record in records], [each.keys for each in observed])
        return self._question.weigh_all([self._adapted(observation) for observation in observed], found)

    def _adapted(self, observation: Observation) -> Observation:
        """The observation under the question's classes; without a trained head, texts alone depend on them."""
        if self._same_classes or self._similarity is None:
            return observation
        return replace(observation, clip=self._similarity.scores(observation.keys, self._question.as_asked))

    def _judged(self, record: PictureRecord, evidence: Evidence) -> tuple[PictureRecord, Decision | None]:
        verdict = self._verdict(evidence)
        parts = (part.cpu().numpy().tobytes() for part in (verdict.row, verdict.column, verdict.best))
        digest = hashlib.sha256(b"|".join((self._frame, *parts))).hexdigest()
        if digest == record.verdict:
            return record, None
        decision, names = self._decide(record.name, verdict), self._question.vocabulary.names
        segments = [(segment.id, segment.category_id, segment.is_thing) for segment in decision.segments]
        labels = {row: names[column] for row, column in decision.labels.items()}
        described = repr((segments, sorted(labels.items()))).encode()
        outcome = hashlib.sha256(described + decision.ids.tobytes()).hexdigest()
        return replace(record, verdict=digest, outcome=outcome, labels=labels), decision

    def _verdict(self, evidence: Evidence) -> Verdict:
        return verdict_of(evidence.fused.scores, evidence.experts.void, self._question.preset.merge)

    def _decide(self, name: str, verdict: Verdict) -> Decision:
        return decide(self._surface(name), verdict, self._question.vocabulary, self._question.preset.merge)

    def _surface(self, name: str) -> Surface:
        """Atoms where the masks are binary; the probabilities of logits differ from pixel to pixel."""
        outline = self.kept.store.load_outline(name).outline
        return PixelSurface(self.kept.store.load(name).masks) if outline is None else AtomSurface(outline)


def refuse_other_classes(kept: KeptRun, asked: Vocabulary) -> None:
    """Raise InputError E341 when a class list needs networks: a detector, a trained head, or a text tower."""
    if _names(asked) == _names(kept.facts.vocabulary):
        return
    reason, proposals = "", kept.facts.preset.proposals.kind
    if proposals in ("fcclip", "gdino-sam"):
        reason = f"The proposals of '{proposals}' and their scores depend on the class list."
    elif kept.texts is not None:
        new = [name for names in _names(asked) for name in names if name not in kept.texts]
        reason = f"The text tower has not read: {', '.join(new[:5])}." if new else ""
    if reason:
        raise InputError(
            "E341",
            "The class list has changed, and the networks have to run.",
            why=reason,
            fix="Run retclip segment with --keep and another --out.",
        )


def _names(vocabulary: Vocabulary) -> list[tuple[str, ...]]:
    return [category.names for category in vocabulary]
