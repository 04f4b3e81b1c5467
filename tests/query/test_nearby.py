"""Neighbours that are recalled are those that a search finds, bit for bit, and most are recalled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from retclip.core.segments import Neighbors
from retclip.presets import Preset, RetrievalSettings
from retclip.query import kept_nearby
from retclip.query.kept_nearby import NearbySearch, NearbyStore
from retclip.query.matching import stored_vocabulary
from retclip.query.question import Question, find_neighbors, pose
from retclip.shards import Database
from tests.shards.conftest import build, make_rows

FIELDS = ("distance", "class_id", "shard", "row", "segment_id")


def question_of(database: Database, **retrieval: Any) -> Question:
    preset = Preset("test", retrieval=RetrievalSettings(**retrieval))
    return pose(database, stored_vocabulary(database), preset)


def searched(question: Question, keys: torch.Tensor) -> Neighbors:
    return find_neighbors(question.index, question.labels, keys, question.preset)


def assert_same(found: Neighbors, expected: Neighbors) -> None:
    for name in FIELDS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert mine.dtype == theirs.dtype
        assert np.array_equal(mine, theirs), name


def stored(path: Path, rows: int, seed: int, transform: str = "centre") -> Database:
    """Vectors around a common one, some of them twice, as of things that resemble one another."""
    segments, vectors = make_rows(rows, seed=seed)
    vectors = vectors + 2.0
    vectors[1::7] = vectors[0]
    database = build(path, segments, vectors, shard_rows=16)
    with database.write("transform", "tests") as transaction:
        transaction.set_transform(transform)
        return transaction.commit()


def keys_of(count: int, seed: int) -> torch.Tensor:
    keys = np.random.default_rng(1000 + seed).normal(size=(count, 8)) + 2.0
    return torch.nn.functional.normalize(torch.from_numpy(keys).float(), dim=1)


def kept(folder: Path, question: Question, keys: torch.Tensor) -> NearbyStore:
    """Surroundings of two pictures."""
    store = NearbyStore(folder)
    search = NearbySearch(store, question)
    search.keep("a", keys[:5])
    search.keep("b", keys[5:])
    return store


def changed(database: Database, change: str) -> Database:
    with database.write(change, "tests") as transaction:
        segments, vectors = make_rows(120, seed=77)
        if "delete" in change:
            transaction.delete(labels=["class 1"])
        if "relabel" in change:
            transaction.relabel("class 2", "class 9")
        if "again" in change:  # the same segments with other vectors
            transaction.delete(labels=["class 3"])
            transaction.add([s for s in segments[:60] if s.label == "class 3"], vectors[3:60:5][:12] + 2.0)
        if "add" in change:
            transaction.add([replace(s, label="new") for s in segments[100:103]], vectors[100:103] + 2.0)
        if "transform" in change:
            transaction.set_transform("standardise")
        return transaction.commit()


@settings(max_examples=60)
@given(
    change=st.sampled_from(["add", "delete", "relabel", "delete, add", "again", "transform"]),
    transform=st.sampled_from(["none", "centre"]),
    rows=st.sampled_from([60, 95]),
    k=st.sampled_from([1, 4, 50]),
    later=st.sampled_from([None, 2, 90]),
    cap=st.sampled_from([0, 2]),
    seed=st.integers(0, 99),
)
def test_what_is_recalled_is_what_a_search_finds(
    tmp_path_factory: pytest.TempPathFactory,
    change: str,
    transform: str,
    rows: int,
    k: int,
    later: int | None,
    cap: int,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("nearby")
    database = stored(folder / "rows.retdb", rows, seed, transform)
    keys = keys_of(12, seed)
    keys[0] = torch.from_numpy(database.vectors([(0, 0)])[0])
    store = kept(folder / "nearby", question_of(database, k=k), keys)
    question = question_of(changed(database, change), k=later or k, per_class_k=cap)
    found = NearbySearch(store, question).neighbors(["a", "b"], [keys[:5], keys[5:]])
    assert_same(found, searched(question, keys))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many keys every later search is asked for."""
    asked: list[int] = []

    def count(index: Any, labels: Any, keys: torch.Tensor, preset: Preset) -> Neighbors:
        asked.append(len(keys))
        return find_neighbors(index, labels, keys, preset)

    monkeypatch.setattr(kept_nearby, "find_neighbors", count)
    return asked


def test_a_small_change_needs_hardly_a_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments, vectors = make_rows(2_000)
    database = build(tmp_path / "rows.retdb", segments, vectors + 2.0)
    with database.write("transform", "tests") as transaction:
        transaction.set_transform("centre")
        database = transaction.commit()
    keys = keys_of(300, 5)
    store = kept(tmp_path / "nearby", question_of(database, k=4), keys)
    with database.write("add", "tests") as transaction:
        more, added = make_rows(2_003, seed=8)
        transaction.add([replace(s, label="new") for s in more[2_000:]], added[2_000:] + 2.0)
        later = transaction.commit()
    question = question_of(later, k=4)
    asked = counted(monkeypatch)
    found = NearbySearch(store, question).neighbors(["a", "b"], [keys[:5], keys[5:]])
    assert sum(asked) < 15
    monkeypatch.undo()
    assert_same(found, searched(question, keys))


def test_a_key_without_length_and_a_lost_file_are_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = stored(tmp_path / "rows.retdb", 90, 3)
    question = question_of(database, k=4)
    keys = keys_of(12, 3)
    store = kept(tmp_path / "nearby", question, keys)
    search = NearbySearch(store, question)
    empty = keys.clone()
    empty[2] = 0
    asked = counted(monkeypatch)
    assert_same(search.neighbors(["a", "b"], [empty[:5], empty[5:]]), searched(question, empty))
    assert asked == [1]
    next((tmp_path / "nearby").glob("a-*")).write_bytes(b"no file of ours")
    assert_same(search.neighbors(["a", "b"], [keys[:5], keys[5:]]), searched(question, keys))
    assert asked == [1, 12]


@pytest.mark.parametrize("name", ["a-*", "known.*"])
def test_surroundings_with_a_changed_byte_are_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    database = stored(tmp_path / "rows.retdb", 90, 3)
    question, keys = question_of(database, k=4), keys_of(12, 3)
    store = kept(tmp_path / "nearby", question, keys)
    path = next((tmp_path / "nearby").glob(name))
    data = bytearray(path.read_bytes())
    data[-2] ^= 64
    path.write_bytes(data)
    asked = counted(monkeypatch)
    found = NearbySearch(store, question).neighbors(["a", "b"], [keys[:5], keys[5:]])
    assert_same(found, searched(question, keys))
    assert asked == [12]


def test_surroundings_without_seals_are_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version before wrote them; whether a byte of them changed cannot be told."""
    database = stored(tmp_path / "rows.retdb", 90, 3)
    question, keys = question_of(database, k=4), keys_of(12, 3)
    store = kept(tmp_path / "nearby", question, keys)
    for path in (tmp_path / "nearby").iterdir():
        path.write_bytes(save(load_file(path)))
    asked = counted(monkeypatch)
    NearbySearch(store, question).neighbors(["a", "b"], [keys[:5], keys[5:]])
    assert asked == [12]


def test_surroundings_among_other_rows_are_dropped(tmp_path: Path) -> None:
    database = stored(tmp_path / "rows.retdb", 90, 4)
    keys = keys_of(12, 4)
    store = kept(tmp_path / "nearby", question_of(database, k=4), keys)
    NearbySearch(store, question_of(changed(database, "delete"), k=4)).keep("a", keys[:5])
    assert store.load("a", 5) is not None
    assert store.load("b", 7) is None
