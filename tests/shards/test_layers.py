"""Several databases asked as one answer like the one database that holds the same rows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retclip.core.errors import DatabaseError, FeatureSpaceMismatch
from retclip.core.vocabulary import Vocabulary
from retclip.ports.neighbors import NeighborIndex
from retclip.query.matching import match_labels
from retclip.shards import Database
from retclip.shards.copying import merge_databases
from retclip.shards.layers import LayeredIndex, open_layers


def part(make, path, rows, labels=None, shard_rows=7):
    """A database of some of 40 rows, with other class names where `labels` has them."""
    segments, vectors = make.rows(40)
    names = labels or {}
    chosen = [replace(segments[n], label=names.get(segments[n].label, segments[n].label)) for n in rows]
    return make.build(path, chosen, vectors[list(rows)], shard_rows)


def answers(index, queries, k, **options):
    """Distances, segment ids and class names, which do not depend on how classes and shards are numbered."""
    found = index.search(queries, k, **options)
    names = {item.id: item.name for item in index.classes} | {-1: ""}
    return found.distance, found.segment_id, np.vectorize(names.get, otypes=[object])(found.class_id)


def assert_same(one, two):
    for mine, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=15)
@given(
    cut=st.integers(1, 39),
    overlap=st.integers(0, 10),
    per_class=st.sampled_from([None, 1, 2]),
    transform=st.sampled_from(["none", "centre", "standardise", "whiten"]),
)
def test_merged_layers_answer_like_a_merged_database(make, tmp_path_factory, cut, overlap, per_class, transform):
    folder = tmp_path_factory.mktemp("layers")
    mine = part(make, folder / "mine.retdb", range(cut))
    common = part(make, folder / "common.retdb", range(max(0, cut - overlap), 40))
    layered = LayeredIndex([mine, common], "merged")
    merged = merge_databases(mine, common, folder / "both.retdb", "tests").database
    queries = np.random.default_rng(cut).normal(size=(5, 8)).astype(np.float32)
    options = {"per_class_k": per_class, "transform": transform}
    assert_same(answers(layered, queries, 9, **options), answers(merged, queries, 9, **options))
    assert len(layered) == len(merged) == 40
    assert {c.name: (c.count, c.is_thing) for c in layered.classes} == {
        c.name: (c.count, c.is_thing) for c in merged.classes
    }


def test_the_first_layer_answers_alone_for_the_classes_that_it_knows(make, tmp_path):
    mine = part(make, tmp_path / "mine.retdb", [0, 1, 5, 6], {"class 1": "kayak"})
    common = part(make, tmp_path / "common.retdb", range(10, 40))
    with common.write("name", "tests") as transaction:
        transaction.declare("class 0", ["zero"])
        transaction.declare("class 1", ["Kayak"])
        common = transaction.commit()
    layered = LayeredIndex([mine, common], "first")
    counts = {item.name: item.count for item in layered.classes}
    assert counts == {"class 0": 2, "kayak": 2, "class 2": 6, "class 3": 6, "class 4": 6}
    assert {item.name: set(item.aliases) for item in layered.classes}["class 0"] >= {"zero"}
    assert len(layered) == 22
    assert [(d["name"], d["layering"], d["classes"]) for d in layered.databases] == [
        ("mine", "first", 2),
        ("common", "first", 3),
    ]
    merged = {item.name: item.count for item in LayeredIndex([mine, common], "merged").classes}
    assert merged == {"class 0": 8, "kayak": 8, "class 2": 6, "class 3": 6, "class 4": 6}


def test_a_segment_of_several_layers_counts_once_under_its_first_label(make, tmp_path):
    mine = part(make, tmp_path / "mine.retdb", [3], {"class 3": "pier"})
    common = part(make, tmp_path / "common.retdb", range(40))
    vectors = make.rows(40)[1]
    for layering in ("first", "merged"):
        layered = LayeredIndex([mine, common], layering)
        assert len(layered) == 40
        found = layered.search(vectors[3:4], 2)
        assert found.distance[0, 1] > found.distance[0, 0]
        position = (int(found.shard[0, 0]), int(found.row[0, 0]))
        assert layered.segments([position])[0].label == "pier"
        assert layered.origin(position[0]) == "mine@2"


def test_every_neighbour_names_the_database_that_holds_it(make, tmp_path):
    parts = [part(make, tmp_path / f"part{n}.retdb", range(10 * n, 10 * n + 10), shard_rows=4) for n in range(4)]
    layered = LayeredIndex(parts, "merged")
    homes = {s.segment_id: f"{db.name}@{db.version}" for db in parts for _, _, s in db.iter_segments()}
    found = layered.search(make.rows(40)[1], 40)
    places = list(zip(found.shard.ravel().tolist(), found.row.ravel().tolist(), strict=True))
    stored = layered.segments(places)
    assert [s.segment_id for s in stored] == found.segment_id.ravel().tolist()
    assert [layered.origin(shard) for shard, _ in places] == [homes[s.segment_id] for s in stored]
    assert set(homes.values()) == {layered.origin(shard) for shard, _ in places}


def test_layers_open_by_name_and_offer_what_a_database_offers(make, tmp_path, monkeypatch):
    monkeypatch.setenv("RETCLIP_HOME", str(tmp_path))
    mine = part(make, tmp_path / "db" / "mine.retdb", range(6))
    common = part(make, tmp_path / "db" / "common.retdb", range(6, 40))
    common.store_thumbnails({make.segment(0, "x").segment_id: b"common", make.segment(9, "x").segment_id: b"nine"})
    mine.store_thumbnails({make.segment(0, "x").segment_id: b"mine"})
    assert isinstance(open_layers("mine@1"), Database)
    layered = open_layers("mine, common@2", "merged")
    index: NeighborIndex = layered
    assert (index.name, index.version, index.space) == ("mine,common", 2, mine.space)
    assert (layered.preset, layered.transform) == (mine.preset, mine.transform)
    assert layered.thumbnail(make.segment(0, "x").segment_id) == b"mine"
    assert layered.thumbnail(make.segment(9, "x").segment_id) == b"nine"
    assert layered.thumbnail(1) is None
    with pytest.raises(DatabaseError, match=r"E309(.|\n)*99"):
        layered.search(np.ones((1, 8), np.float32), 1, classes=[99])
    with pytest.raises(DatabaseError, match="E306"):
        open_layers("mine,nothing")
    for reference in ("lancedb:D#n,mine", "mine,qdrant:D"):
        with pytest.raises(DatabaseError, match="E306 Vector engines cannot be layered"):
            open_layers(reference)


def test_layers_of_different_encoders_are_refused(make, tmp_path):
    other = Database.create(tmp_path / "other.retdb", make.space(4), {})
    with pytest.raises(FeatureSpaceMismatch, match="E301"):
        LayeredIndex([part(make, tmp_path / "mine.retdb", range(3)), other])
    with pytest.raises(ValueError, match="layering"):
        LayeredIndex([other], "last")


def labelled(make, path, **numbers):
    """A database of one-row classes: the number of the segment of each."""
    segments = [make.segment(number, label) for label, number in numbers.items()]
    return make.build(path, segments, np.eye(8, dtype=np.float32)[[number % 8 for number in numbers.values()]])


@pytest.mark.parametrize("layering", ["first", "merged"])
def test_a_class_takes_no_name_that_an_earlier_class_has_and_none_twice(make, tmp_path, layering):
    one = labelled(make, tmp_path / "one.retdb", kitten=1, cat=2)
    two = labelled(make, tmp_path / "two.retdb", cat=3)
    with two.write("name", "tests") as transaction:
        transaction.declare("cat", ["kitten", "tabby"])
        two = transaction.commit()
    three = labelled(make, tmp_path / "three.retdb", Tabby=4)
    layered = LayeredIndex([one, two, three], layering)
    assert {item.name: item.aliases for item in layered.classes} == {"kitten": (), "cat": ("tabby",)}
    assert layered.snapshot.classes.find("kitten") == 0
    assert match_labels(Vocabulary.from_names("v", ["kitten", "cat"]), layered.classes).column == {0: 0, 1: 1}


def test_a_segment_is_served_by_the_first_layer_that_is_asked_for_its_class(make, tmp_path):
    """The second layer is not asked for cats, so its cat is a puma by the third."""
    one = labelled(make, tmp_path / "one.retdb", cat=1)
    two = labelled(make, tmp_path / "two.retdb", cat=2, dog=3)
    three = labelled(make, tmp_path / "three.retdb", puma=2, wolf=3)
    layered = LayeredIndex([one, two, three], "first")
    assert {item.name: item.count for item in layered.classes} == {"cat": 1, "dog": 1, "puma": 1}
    assert len(LayeredIndex([one, two, three], "merged")) == 3
