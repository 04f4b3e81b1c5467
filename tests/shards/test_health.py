"""Wrong labels, doubles, confusions and drift that were put into a database on purpose are found, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from retclip.core.errors import EmptyDatabase
from retclip.shards import Database
from retclip.shards.drift import measure_drift
from retclip.shards.health import ClassHealth, examine
from retclip.shards.self_search import NEIGHBOURS, ask_itself
from retclip.shards.suggestions import suggest


def clusters(make, sizes, seed=0, noise=0.15, per_image=3):
    """Segments of classes around directions of their own; consecutive segments share a picture."""
    rng = np.random.default_rng(seed)
    centres = np.eye(8)
    segments, vectors = [], []
    for place, (name, count) in enumerate(sizes.items()):
        for _ in range(count):
            number = len(segments)
            segment = make.segment(number, name)
            segments.append(replace(segment, image_sha256=f"{number // per_image + 1:064x}"))
            vectors.append(centres[place] + noise * rng.normal(size=8))
    return segments, np.array(vectors, np.float32)


@pytest.fixture
def planted(make, tmp_path):
    """Four tidy classes; two cats called dogs, a near double in another picture, and a class of two."""
    segments, vectors = clusters(make, {"cat": 30, "dog": 30, "tree": 30, "sky": 30, "rare": 2})
    wrong = [5, 20]
    for number in wrong:
        segments[number] = replace(segments[number], label="dog")
    vectors[70] = vectors[61] + 1e-4
    database = make.build(tmp_path / "d.retdb", segments, vectors, shard_rows=50)
    return database, {segments[n].segment_id for n in wrong}, {segments[61].segment_id, segments[70].segment_id}


def test_what_was_planted_is_found_and_nothing_else(planted):
    database, wrong, doubled = planted
    health = examine(database)
    assert {found.segment_id for found in health.disagreeing} == wrong
    assert {(found.label, found.other) for found in health.disagreeing} == {("dog", "cat")}
    assert all(found.share > 0.5 for found in health.disagreeing)
    assert all(label == "cat" for _, label, _ in health.disagreeing[0].neighbours[:3])
    assert [{pair.segment_id, pair.other_id} for pair in health.duplicates] == [doubled]
    assert (health.segments, health.asked, health.judged) == (122, 122, 120)
    assert [item.name for item in health.thin] == ["rare"]


def test_a_segment_is_never_its_own_witness(planted):
    database = planted[0]
    answers = ask_itself(database, 1000)
    home = {s.segment_id: s.image_sha256 for _, _, s in database.iter_segments()}
    vectors = {s.segment_id: database.vectors([(a, b)])[0] for a, b, s in database.iter_segments()}
    labels = {s.segment_id: s.label for _, _, s in database.iter_segments()}
    for row, segment_id in enumerate(answers.segment_id.tolist()):
        others = [i for i in home if home[i] != home[segment_id]]
        distance = np.array([1 - vectors[segment_id] @ vectors[i] for i in others])
        expected = np.sort(distance)[:NEIGHBOURS]
        np.testing.assert_allclose(answers.distance[row], expected, atol=2e-3)
        same = [d for d, i in zip(distance, others, strict=True) if labels[i] == labels[segment_id]]
        assert answers.rivals[row] == len(same)
        assert answers.own[row] == pytest.approx(min(same, default=np.inf), abs=2e-3)


def test_a_sample_covers_every_class(planted):
    answers = ask_itself(planted[0], 5)
    ids, counts = np.unique(answers.class_id, return_counts=True)
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == {0: 5, 1: 5, 2: 5, 3: 5, 4: 2}
    assert len(set(answers.segment_id.tolist())) == 22


def test_confused_classes_name_each_other(make, tmp_path):
    segments, vectors = clusters(make, {"couch": 20, "sofa": 20, "tree": 20})
    rng = np.random.default_rng(3)
    vectors[20:40] = np.eye(8)[0] + 0.15 * rng.normal(size=(20, 8))
    health = examine(make.build(tmp_path / "d.retdb", segments, vectors))
    table = {item.name: item for item in health.classes}
    assert next(iter(table["couch"].confused_with)) == "sofa"
    assert next(iter(table["sofa"].confused_with)) == "couch"
    assert table["sofa"].confused_with["couch"] > 0.25
    assert table["tree"].agreement == 1.0
    assert table["tree"].confused_with == {}


def test_pictures_and_dead_rows_do_not_count(planted):
    database, wrong, _ = planted
    with database.write("delete", "tests") as transaction:
        transaction.delete(segment_ids=wrong)
        after = transaction.commit()
    health = examine(after)
    assert health.disagreeing == ()
    assert {item.name: item.images for item in health.classes}["rare"] == 1
    assert {item.name: item.segments for item in health.classes}["cat"] == 28


def test_small_and_empty_databases(make, tmp_path):
    with pytest.raises(EmptyDatabase):
        examine(Database.create(tmp_path / "empty.retdb", make.space(), {}))
    one = examine(make.build(tmp_path / "one.retdb", *clusters(make, {"cat": 1})))
    assert (one.asked, one.judged, len(one.nearest), one.disagreeing, one.duplicates) == (1, 0, 0, (), ())
    assert np.isnan(one.classes[0].spread)
    assert np.isnan(one.classes[0].agreement)


def test_drift_is_the_share_beyond_what_the_database_knows():
    own = np.linspace(0, 1, 1001)
    same = measure_drift(own, own)
    assert (same.median, same.own_median) == (0.5, 0.5)
    assert same.far == pytest.approx(0.05, abs=0.001)
    assert measure_drift(own + 0.96, own).far == 1.0
    with pytest.raises(ValueError, match="distances"):
        measure_drift(np.zeros(0), own)


def test_suggestions_name_reason_and_remedy_most_urgent_first():
    classes = [
        ClassHealth("fine", 40, 20, 0.2, 1.0, {"other": 0.1}),
        ClassHealth("rare", 2, 2, 0.2, float("nan"), {}),
        ClassHealth("album", 30, 2, 0.2, 1.0, {}),
        ClassHealth("copies", 30, 10, 0.01, 1.0, {}),
        ClassHealth("sofa", 8, 8, 0.2, 0.5, {"couch": 0.5}),
        ClassHealth("alone", 1, 1, float("nan"), float("nan"), {}),
        ClassHealth("nine", 9, 1, 0.2, 1.0, {}),
    ]
    found = {item.name: item for item in suggest(classes)}
    assert list(found) == ["copies", "alone", "nine", "rare", "sofa", "album"]
    assert found["alone"].reasons == ("only 1 exemplar",)
    assert found["nine"].reasons == ("only 9 exemplars", "all from 1 picture")
    assert found["nine"].additions[0] == "1 exemplar or more"
    assert found["rare"].additions == ("8 exemplars or more",)
    assert found["album"].additions == ("exemplars from other pictures",)
    assert found["copies"].additions == ("other views, sizes and light",)
    assert found["sofa"].additions == ("2 exemplars or more", "exemplars that differ from 'couch'")
    assert found["sofa"].reasons[1] == "50% of its neighbours are 'couch'"
    assert suggest([]) == []
