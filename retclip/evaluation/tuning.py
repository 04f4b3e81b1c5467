"""Thousands of settings from scores that were computed once: which one labels segments of unseen pictures best?

Every setting is tried on annotated masks, twice: with each half of the classes taken out of the database. A class is
then once stored and once absent, and both count, so that a setting that forgets classes without exemplars cannot win.
Where retrieval is the only expert, absent classes are lost whatever the setting, and nothing is hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from retclip.evaluation.class_groups import harmonic_mean
from retclip.evaluation.held_out import HeldOut, OwnPicture, without_columns
from retclip.evaluation.panoptic_quality import MatchCounts, summarise
from retclip.evaluation.reliability import fit_reliability, nearest_is_right
from retclip.presets import Preset, RetrievalSettings
from retclip.query.matching import LabelMap
from retclip.query.retrieval import retrieval_scores
from retclip.query.scoring import AskedClasses, Hits, weigh, weigh_retrieved

_CELLS = 150_000  # scores of a chunk: tables this small stay in the processor's cache
_SEED = 0


@dataclass(frozen=True)
class Candidate:
    """One setting to try; `fit` asks for a reliability fitted on the database in place of the preset's."""

    preset: Preset
    fit: bool = False


@dataclass(frozen=True)
class Outcome:
    """Panoptic quality of one candidate on annotated masks, fractions in [0, 1].

    Attributes:
        stored: mean over classes that the database holds.
        absent: over classes that were taken out of it, NaN where retrieval is the only expert.
        harmonic: of both, or `stored` alone.
    """

    candidate: Candidate
    stored: float
    absent: float
    harmonic: float


@dataclass(frozen=True)
class Ground:
    """What candidates are tried on.

    Attributes:
        held_out: annotated segments; own: the database that leaves their own picture out.
        labels: which stored classes answer for which columns.
        is_thing: (C,) bool.
        seen: (C,) bool, classes of the trained head.
    """

    held_out: HeldOut
    own: OwnPicture
    labels: LabelMap
    is_thing: npt.NDArray[np.bool_]
    seen: npt.NDArray[np.bool_]

    def folds(self) -> tuple[npt.NDArray[np.bool_], ...]:
        """What is hidden in turn, (C,) bool each: two complementary halves of the stored classes, or nothing."""
        if self.held_out.observation.clip is None and self.held_out.observation.in_vocab is None:
            return (np.zeros(len(self.is_thing), np.bool_),)
        stored = np.array(sorted(set(self.labels.column.values())), np.int64)
        first = np.zeros(len(self.is_thing), np.bool_)
        first[np.random.default_rng(_SEED).permutation(stored)[: len(stored) // 2]] = True
        second = np.zeros_like(first)
        second[stored] = ~first[stored]
        return first, second


def sweep(ground: Ground, candidates: Sequence[Candidate], progress: Callable[[int, int], None]) -> list[Outcome]:
    """Try every candidate; results in the same order. Searches are shared by all that differ in fusion only."""
    groups: dict[RetrievalSettings, list[int]] = {}
    for place, candidate in enumerate(candidates):
        groups.setdefault(_search_settings(candidate.preset.retrieval), []).append(place)
    widest = {key: max(candidates[p].preset.retrieval.k for p in places) for key, places in groups.items()}
    folds = ground.folds()
    qualities = np.zeros((len(candidates), len(folds), 2))
    done = 0
    for key, places in groups.items():
        for fold, hidden in enumerate(folds):
            labels = without_columns(ground.labels, hidden)
            hits = ground.own.hits(ground.held_out, labels, replace(key, k=widest[key]))
            chosen = [_resolved(candidates[p], hits, ground.held_out) for p in places]
            qualities[places, fold] = _try_all(ground, hidden, hits, chosen)
            done += len(places)
            progress(done, len(folds) * len(candidates))
    means = qualities.mean(axis=1).tolist()
    return [_outcome(c, mean[0], mean[1]) for c, mean in zip(candidates, means, strict=True)]


def _outcome(candidate: Candidate, stored: float, absent: float) -> Outcome:
    return Outcome(candidate, stored, absent, stored if math.isnan(absent) else harmonic_mean(stored, absent))


def _search_settings(retrieval: RetrievalSettings) -> RetrievalSettings:
    """What a search depends on beside k: a longer list holds every shorter one."""
    return RetrievalSettings(transform=retrieval.transform, per_class_k=retrieval.per_class_k)


def _resolved(candidate: Candidate, hits: Hits, held_out: HeldOut) -> Preset:
    if not candidate.fit:
        return candidate.preset
    fitted = fit_reliability(*nearest_is_right(hits, held_out.column))
    return replace(candidate.preset, fusion=replace(candidate.preset.fusion, reliability=fitted))


def _try_all(
    ground: Ground, hidden: npt.NDArray[np.bool_], hits: Hits, presets: Sequence[Preset]
) -> npt.NDArray[np.float64]:
    """(n, 2) quality over stored and over hidden classes of every preset."""
    classes = len(ground.is_thing)
    counts = [MatchCounts.zero(classes) for _ in presets]
    stored = np.isin(np.arange(classes), list(ground.labels.column.values())) & ~hidden
    asked = AskedClasses(torch.from_numpy(stored), torch.from_numpy(ground.seen))
    for chosen in ground.held_out.image_chunks(_CELLS // classes):
        part, near = ground.held_out.rows(chosen), _hit_rows(hits, chosen)
        # Settings that differ in fusion only share their retrieval scores.
        retrieved: dict[RetrievalSettings, torch.Tensor] = {}
        for place, preset in enumerate(presets):
            predicted = predict_columns(part, near.nearest(preset.retrieval.k), asked, preset, retrieved)
            counts[place] = counts[place] + count_labels(part, predicted, ground.is_thing)
    results = [summarise(count, ground.is_thing) for count in counts]
    return np.array([[result.mean(stored).pq, result.mean(hidden).pq] for result in results])


def _hit_rows(hits: Hits, chosen: npt.NDArray[np.bool_]) -> Hits:
    rows = torch.from_numpy(chosen)
    return Hits(hits.distance[rows], hits.column[rows])


def predict_columns(
    part: HeldOut,
    hits: Hits,
    asked: AskedClasses,
    preset: Preset,
    retrieved: dict[RetrievalSettings, torch.Tensor] | None = None,
) -> npt.NDArray[np.int64]:
    """(N,) best column of every segment, -1 where no class has any score.

    Args:
        part: whole pictures.
        hits: (N, K) their neighbours, K as the preset says.
        asked: which classes are stored, which are seen.
        preset: the setting to try.
        retrieved: retrieval scores of these hits by setting; filled for settings that look at segments one by one.
    """
    known = {} if retrieved is None else retrieved
    settings = preset.retrieval
    if settings.prune_classes > 0 or (settings.rule == "minmax" and settings.minmax == "image"):
        pictures = [part.image == number for number in np.unique(part.image)]
        parts = [weigh(part.rows(p).observation, _hit_rows(hits, p), asked, preset)[1].scores for p in pictures]
        scores = torch.cat(parts)
    else:
        if settings not in known:
            known[settings] = retrieval_scores(hits.distance, hits.column, len(asked.stored), settings)
        scores = weigh_retrieved(part.observation, hits, known[settings], asked, preset)[1].scores
    best, column = scores.max(dim=1)
    return torch.where(best > 0, column, -1).numpy()


def count_labels(part: HeldOut, predicted: npt.NDArray[np.int64], is_thing: npt.NDArray[np.bool_]) -> MatchCounts:
    """Matches when annotated masks carry predicted columns: what merging and `PanopticQuality` would count.

    A thing is its own segment. The stuff segments of one class in a picture join: they match an annotated one if it is
    more than half of their pixels.
    """
    classes = len(is_thing)
    right, named = predicted == part.column, predicted >= 0
    stuff = named & ~is_thing[predicted]
    group = part.image * classes + predicted
    joined = np.zeros(len(part.digests) * classes, np.int64)
    np.add.at(joined, group[stuff], part.area[stuff])
    iou = np.where(right, 1.0, 0.0)
    iou[stuff & right] = part.area[stuff & right] / joined[group[stuff & right]]
    matched = iou > 0.5
    segments = np.bincount(predicted[named & ~stuff], minlength=classes)
    segments += np.bincount(np.flatnonzero(joined) % classes, minlength=classes)
    tp = np.bincount(part.column[matched], minlength=classes)
    total = np.bincount(part.column, minlength=classes)
    sums = np.bincount(part.column[matched], weights=iou[matched], minlength=classes).astype(np.float64)
    return MatchCounts(sums, tp, segments - tp, total - tp)


def best_of(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome with the highest harmonic mean, then the highest stored quality; the first of equals."""
    return max(outcomes, key=lambda outcome: (outcome.harmonic, outcome.stored))


def with_fit(ground: Ground, outcome: Outcome) -> Preset:
    """The winner's preset; a fitted reliability is fitted again with each half hidden, and averaged."""
    if not outcome.candidate.fit:
        return outcome.candidate.preset
    preset = outcome.candidate.preset
    fits = []
    for hidden in ground.folds():
        hits = ground.own.hits(ground.held_out, without_columns(ground.labels, hidden), preset.retrieval)
        fits.append(fit_reliability(*nearest_is_right(hits, ground.held_out.column)))
    intercept, slope = np.mean(fits, axis=0).tolist()
    return replace(preset, fusion=replace(preset.fusion, reliability=(intercept, slope)))
