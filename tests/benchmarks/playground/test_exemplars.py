"""Databases with few exemplars of the unseen classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.playground.exemplars import figures, surplus, with_exemplars
from benchmarks.playground.world import GROUPS, SEEN, VOCABULARY, World
from retclip.shards import Database
from tests.benchmarks.playground.conftest import random_counts


def test_few_exemplars_are_the_largest_of_different_pictures(world: World, tmp_path: Path) -> None:
    database = Database.open(world.database_path("a"))
    assert with_exemplars(database, tmp_path / "all.retdb", None) is database
    few = with_exemplars(database, tmp_path / "few.retdb", 1)
    unseen = {category.name for category, seen in zip(VOCABULARY, SEEN, strict=True) if not seen}
    stored, left = ([segment for _, _, segment in index.iter_segments()] for index in (database, few))
    ids = [{s.segment_id for s in segments if s.label not in unseen} for segments in (stored, left)]
    assert ids[0] == ids[1]
    for name in unseen & {segment.label for segment in stored}:
        largest = max(segment.area for segment in stored if segment.label == name)
        assert [segment.area for segment in left if segment.label == name] == [largest]
    own = [replace(stored[0], segment_id=n, area=area, image_id=f"{n // 2}") for n, area in enumerate((5, 9, 7, 8))]
    assert [segment.segment_id for segment in surplus(own, 2)] == [0, 2]
    assert len(surplus(own, 3)) == 2, "there are two pictures"


def test_figures_of_few_exemplars_are_percent_by_class() -> None:
    found = figures([random_counts(1), random_counts(2)])
    assert set(found["pq"]) == set(GROUPS)
    assert len(found["pq_of_classes"]) == int((~SEEN).sum())
    assert all(0 <= value <= 100 for value in found["pq_of_classes"].values())
