"""Classes travel from one database to another with their vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, FeatureSpaceMismatch
from retclip.core.vocabulary import Category, Vocabulary
from retclip.indexer.build import build
from retclip.indexer.extend import copy_classes, copyable
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.shards import Database, verify
from tests.fakes import ColourEncoder, StripeCorpus, build_stripes


@pytest.fixture
def rich(tmp_path: Path, corpus: StripeCorpus) -> Database:
    encoder = ColourEncoder()
    database = Database.create(tmp_path / "rich.retdb", encoder.space, {})
    build(database, BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), thumbnails=16), encoder, "build")
    return Database.open(database.path)


@pytest.fixture
def poor(tmp_path: Path) -> Database:
    return build_stripes(tmp_path / "poor.retdb", StripeCorpus.write(tmp_path / "poor", [["yellow"]]))[0]


def asked(*names: str) -> Vocabulary:
    return Vocabulary.from_names("asked", names)


def test_classes_bring_segments_vectors_names_and_thumbnails(rich: Database, poor: Database) -> None:
    report = copy_classes(poor, rich, asked("SCARLET", "green"), None)
    assert (report.added, report.known, report.capped, report.version) == (6, 0, 0, poor.version + 1)
    assert report.classes == {"red": 3, "green": 3}
    result = Database.open(poor.path)
    assert report.content_hash == result.content_hash()
    assert {item.name: item.aliases for item in result.classes}["red"] == ("scarlet",)
    assert verify(poor.path, deep=True).ok
    origin = {segment.segment_id: (shard, row) for shard, row, segment in rich.iter_segments()}
    for shard, row, segment in result.iter_segments():
        if segment.label == "yellow":
            continue
        there = rich.segment(*origin[segment.segment_id])
        assert np.array_equal(result.vectors([(shard, row)]), rich.vectors([origin[segment.segment_id]]))
        assert repr(segment) == repr(there)
        assert result.thumbnail(segment.segment_id) == rich.thumbnail(segment.segment_id) is not None


def test_a_class_whose_segments_are_known_under_another_name_is_not_made(rich: Database, poor: Database) -> None:
    first = copy_classes(poor, rich, asked("red"), None)
    with rich.write("relabel", "tests") as transaction:
        red = next(item.id for item in rich.classes if item.name == "red")
        transaction.relabel_segments([segment.segment_id for _, _, segment in rich.iter_segments([red])], "ruby")
        rich = transaction.commit()
    again = copy_classes(Database.open(poor.path), rich, asked("ruby", "green"), None)
    assert (again.added, again.known, again.classes) == (3, 3, {"green": 3})
    assert again.version == first.version + 1


def test_copying_again_adds_nothing_and_makes_no_version(rich: Database, poor: Database) -> None:
    first = copy_classes(poor, rich, asked("red"), None)
    again = copy_classes(Database.open(poor.path), rich, asked("red"), None)
    assert (again.added, again.known, again.version) == (0, 3, first.version)
    assert again.content_hash == first.content_hash


def test_shots_bound_every_class(rich: Database, poor: Database) -> None:
    report = copy_classes(poor, rich, asked("red", "green"), 2)
    assert report.classes == {"red": 2, "green": 2}
    assert (report.added, report.capped) == (4, 2)


def test_batches_change_nothing(rich: Database, poor: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retclip.shards.copying._BATCH", 2)
    report = copy_classes(poor, rich, asked("red", "blue", "green"), None)
    assert report.added == 9


def test_unknown_classes_and_other_encoders_are_refused(rich: Database, poor: Database, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="'rich' has none") as caught:
        copyable(poor, rich, asked("zebra"))
    assert caught.value.code == "E309"
    assert "zebra" in caught.value.why
    stranger = Database.create(tmp_path / "s.retdb", ColourEncoder("fake/other").space, {})
    with pytest.raises(FeatureSpaceMismatch):
        copyable(poor, stranger, asked("red"))
    with pytest.raises(FeatureSpaceMismatch):
        copy_classes(poor, stranger, asked("red"), None)
    assert Database.open(poor.path).version == poor.version


def test_names_that_led_to_a_class_lead_to_its_copy(tmp_path: Path, corpus: StripeCorpus) -> None:
    source, _ = build_stripes(tmp_path / "source.retdb", corpus)
    database = Database.create(tmp_path / "copy.retdb", source.space, {})
    names = Vocabulary("asked", (Category(0, ("ultramarine", "blue")), Category(1, ("green",))))
    copy_classes(database, source, names, None)
    aliases = {item.name: set(item.aliases) for item in Database.open(database.path).classes}
    assert "ultramarine" in aliases["blue"]
    assert "ultramarine" not in aliases["green"]
