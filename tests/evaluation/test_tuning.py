from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.masks import MaskSet
from retclip.core.vocabulary import Category, Vocabulary
from retclip.evaluation.held_out import HeldOut, OwnPicture, from_database, limit_per_class, without_columns
from retclip.evaluation.panoptic_quality import MapSegment, PanopticQuality
from retclip.evaluation.reliability import doubtful, fit_reliability
from retclip.evaluation.tuning import Candidate, Ground, best_of, count_labels, predict_columns, sweep, with_fit
from retclip.presets import FusionSettings, MergeSettings, Preset, RetrievalSettings
from retclip.query.matching import match_labels, vocabulary_of
from retclip.query.merge import merge_panoptic
from retclip.query.question import asked_classes, find_neighbors, hits_of
from retclip.query.scoring import AskedClasses, Hits, Observation
from retclip.shards import Database
from tests.fakes import StripeCorpus, build_stripes

CLASSES = 5
THINGS = np.array([True, False, True, False, False])
VOCABULARY = Vocabulary("v", tuple(Category(10 + n, (f"c{n}",), bool(THINGS[n])) for n in range(CLASSES)))
PICTURES = [["red", "blue"], ["green", "red"], ["blue", "grey"], ["red", "green", "blue"], ["grey", "green"]]


@pytest.fixture(scope="module")
def stripes(tmp_path_factory) -> tuple[Database, StripeCorpus]:
    folder = tmp_path_factory.mktemp("tune")
    corpus = StripeCorpus.write(folder / "photos", PICTURES)
    return build_stripes(folder / "stripes.retdb", corpus)[0], corpus


def picture_tables(rng: np.random.Generator, images: int) -> tuple[HeldOut, list[np.ndarray]]:
    """Random partitions: every segment is annotated and is a proposal."""
    maps, columns, image, area = [], [], [], []
    for number in range(images):
        ids = rng.integers(1, 5, (6, 7)).astype(np.int32)
        _, ids = np.unique(ids, return_inverse=True)
        ids = ids.reshape(6, 7) + 1
        maps.append(ids)
        count = int(ids.max())
        columns += rng.integers(0, CLASSES, count).tolist()
        image += [number] * count
        area += np.bincount(ids.ravel())[1:].tolist()
    table = np.array([columns, image, area], np.int64)
    observation = Observation(torch.zeros(table.shape[1], 2))
    return HeldOut(observation, table[0], table[1], table[2], tuple(map(str, range(images)))), maps


@given(seed=st.integers(0, 5000))
def test_counting_labels_equals_merging_and_counting_pixels(seed):
    rng = np.random.default_rng(seed)
    part, maps = picture_tables(rng, 3)
    predicted = np.where(rng.random(len(part)) < 0.5, part.column, rng.integers(-1, CLASSES, len(part)))
    quality = PanopticQuality(VOCABULARY)
    for number, ids in enumerate(maps):
        rows = np.flatnonzero(part.image == number)
        masks = MaskSet(torch.stack([torch.from_numpy(ids == n + 1) for n in range(len(rows))]), (6, 7), "given")
        scores = torch.zeros(len(rows), CLASSES)
        for row, column in enumerate(predicted[rows].tolist()):
            if column >= 0:
                scores[row, column] = 0.5 + 0.01 * row
        merged = merge_panoptic(masks, scores, None, VOCABULARY, MergeSettings()).panoptic
        truth = [MapSegment(n + 1, VOCABULARY[int(part.column[row])].id) for n, row in enumerate(rows)]
        found = [MapSegment(segment.id, segment.category_id) for segment in merged.segments]
        quality.add(ids, truth, merged.ids, found, str(number))
    counted = count_labels(part, predicted, THINGS)
    for name in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(counted, name), getattr(quality.counts, name), err_msg=name)
    np.testing.assert_allclose(counted.iou, quality.counts.iou, rtol=1e-12)


@pytest.mark.parametrize(
    "settings", [RetrievalSettings(k=3, transform="none"), RetrievalSettings(k=4, transform="none", per_class_k=1)]
)
def test_leaving_a_picture_out_equals_a_database_without_it(stripes, tmp_path, settings):
    database, corpus = stripes
    vocabulary = vocabulary_of("v", database.classes)
    labels = match_labels(vocabulary, database.classes)
    held_out = from_database(database, labels, 100)
    assert (len(held_out), len(held_out.digests)) == (11, 5)
    hits = OwnPicture(database, held_out.digests).hits(held_out, labels, settings)
    by_digest = {s.image_sha256: s.image_id for _, _, s in database.iter_segments()}
    for number, digest in enumerate(held_out.digests):
        kept = [c for n, c in enumerate(corpus._pictures) if n != int(by_digest[digest])]
        paths = [p for n, p in enumerate(corpus.paths) if n != int(by_digest[digest])]
        rest = StripeCorpus(tmp_path, kept, {})
        rest.paths = paths
        rest.regions = lambda image, size, kind: corpus.regions(image, size, kind)
        other, _ = build_stripes(tmp_path / f"{number}-{settings.per_class_k}.retdb", rest)
        other_labels = match_labels(vocabulary, other.classes)
        rows = torch.from_numpy(held_out.image == number)
        keys = held_out.observation.keys[rows]
        alone = hits_of(
            find_neighbors(other, other_labels, keys, Preset("p", retrieval=settings)),
            other_labels,
            torch.device("cpu"),
        )
        np.testing.assert_array_equal(hits.distance[rows], alone.distance)
        np.testing.assert_array_equal(hits.column[rows], alone.column)


def ground_of(database: Database, clip: bool) -> Ground:
    vocabulary = vocabulary_of("v", database.classes)
    labels = match_labels(vocabulary, database.classes)
    held_out = from_database(database, labels, 100)
    if clip:
        table = torch.full((len(held_out), len(vocabulary)), 0.1)
        table[torch.arange(len(held_out)), torch.from_numpy(held_out.column)] = 0.7
        held_out = replace(held_out, observation=replace(held_out.observation, clip=table))
    things = np.array([category.is_thing for category in vocabulary])
    return Ground(held_out, OwnPicture(database, held_out.digests), labels, things, np.zeros(len(things), bool))


def test_with_a_text_expert_absent_classes_decide(stripes):
    ground = ground_of(stripes[0], clip=True)
    text, paper, blind = (
        Candidate(Preset("p", retrieval=RetrievalSettings(k=4, transform="none"), fusion=FusionSettings(gamma=g)))
        for g in (0.0, 0.3, 1.0)
    )
    steps = []
    outcomes = sweep(ground, [paper, text, blind], lambda done, total: steps.append((done, total)))
    assert [o.candidate for o in outcomes] == [paper, text, blind]
    assert (outcomes[1].stored, outcomes[1].absent, outcomes[1].harmonic) == (1.0, 1.0, 1.0)
    assert (outcomes[2].absent, outcomes[2].harmonic) == (0.0, 0.0)
    assert best_of(outcomes).candidate is paper
    assert best_of(outcomes[1:]).candidate is text
    assert steps[-1] == (6, 6)
    first, second = ground.folds()
    assert not (first & second).any()
    assert (first | second).all()


def test_retrieval_alone_hides_nothing(stripes):
    ground = ground_of(stripes[0], clip=False)
    (outcome,) = sweep(
        ground, [Candidate(Preset("p", retrieval=RetrievalSettings(k=1, transform="none")))], lambda a, b: None
    )
    assert np.isnan(outcome.absent)
    assert outcome.harmonic == outcome.stored == 1.0


def test_a_sweep_is_the_pipeline_on_every_setting(stripes):
    ground = ground_of(stripes[0], clip=True)
    fusion = FusionSettings(gamma=0.6)
    tried = [
        RetrievalSettings(k=k, rule=rule, transform="centre", prune_classes=prune)
        for k in (2, 5)
        for rule in ("minmax", "voting")
        for prune in (0, 2)
    ]
    candidates = [Candidate(Preset("p", retrieval=retrieval, fusion=fusion)) for retrieval in tried]
    outcomes = sweep(ground, candidates, lambda done, total: None)
    for outcome in outcomes:
        values = []
        for hidden in ground.folds():
            labels = without_columns(ground.labels, hidden)
            hits = ground.own.hits(ground.held_out, labels, outcome.candidate.preset.retrieval)
            asked = asked_classes(labels, len(hidden))
            predicted = predict_columns(ground.held_out, hits, asked, outcome.candidate.preset)
            counts = count_labels(ground.held_out, predicted, ground.is_thing)
            weight = counts.tp + 0.5 * counts.fp + 0.5 * counts.fn
            pq = np.divide(counts.iou, weight, out=np.zeros_like(weight), where=weight > 0)
            values.append(pq[~hidden & (weight > 0)].mean())
        assert outcome.stored == pytest.approx(np.mean(values))


def test_a_fitted_reliability_ends_in_the_preset(stripes):
    ground = ground_of(stripes[0], clip=True)
    preset = Preset("p", retrieval=RetrievalSettings(k=4, transform="none", rule="voting"))
    (outcome,) = sweep(ground, [Candidate(preset, fit=True)], lambda done, total: None)
    intercept, slope = with_fit(ground, outcome).fusion.reliability
    assert slope < 0 < intercept
    assert with_fit(ground, replace(outcome, candidate=Candidate(preset))) is preset


def test_reliability_recovers_the_curve_it_was_drawn_from():
    rng = np.random.default_rng(0)
    distance = rng.uniform(0, 1, 20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-(2 - 5 * distance)))
    intercept, slope = fit_reliability(np.append(distance, np.inf), np.append(right, False))
    assert intercept == pytest.approx(2, abs=0.25)
    assert slope == pytest.approx(-5, abs=0.5)
    with pytest.raises(ValueError, match="finite"):
        fit_reliability(np.array([np.inf]), np.array([False]))


def test_an_exemplar_is_doubtful_when_others_of_its_class_exist_and_none_is_near():
    hits = Hits(torch.zeros(4, 2), torch.tensor([[0, 1], [1, 1], [0, 0], [0, 1]]))
    column, image = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3])
    # Row 1 finds only class 1; row 2 is the only picture of class 1, row 3 of class 2: nobody could confirm them.
    assert doubtful(hits, column, image).tolist() == [False, True, False, False]


def test_at_most_so_many_hits_of_a_class():
    hits = Hits(torch.tensor([[0.1, 0.2, 0.3, 0.4, torch.inf]]), torch.tensor([[1, 1, 0, 1, -1]]))
    limited = limit_per_class(hits, 2)
    assert limited.column.tolist() == [[1, 1, 0, -1, -1]]
    assert limited.distance[0, :3].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_chunks_keep_pictures_whole():
    part, _ = picture_tables(np.random.default_rng(1), 6)
    chunks = part.image_chunks(5)
    assert np.sum(chunks, axis=0).tolist() == [1] * len(part)
    for chunk in chunks:
        for number in np.unique(part.image[chunk]):
            assert chunk[part.image == number].all()
    assert len(chunks) > 1


def test_predictions_without_any_score_are_none():
    hits = Hits(torch.full((1, 1), torch.inf), torch.full((1, 1), -1))
    part = HeldOut(Observation(torch.zeros(1, 2)), np.array([0]), np.array([0]), np.array([5]), ("x",))
    asked = AskedClasses(torch.zeros(CLASSES, dtype=torch.bool), torch.zeros(CLASSES, dtype=torch.bool))
    assert predict_columns(part, hits, asked, Preset("p")).tolist() == [-1]
