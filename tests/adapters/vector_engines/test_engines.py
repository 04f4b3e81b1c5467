"""Copies in vector engines: named, refused, interrupted, locked, and approximate."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retclip.adapters.vector_engines import export_to_engine, open_engine
from retclip.core.errors import DatabaseError, InputError
from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment
from retclip.shards import Database
from tests.absence import require_library

LIBRARIES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}
DIM = 32


@pytest.fixture(params=["lancedb", "qdrant"])
def engine(request: pytest.FixtureRequest) -> str:
    return _installed(request.param)


def _installed(engine: str) -> str:
    require_library(LIBRARIES[engine], engine)
    return engine


def _segment(number: int, label: str) -> StoredSegment:
    return StoredSegment(
        number + 1, label, label, "human", 1.0, "s", "train", "i", "u", "0" * 64, 9, 9, (0, 0, 1, 1), 1, b"m", "", "",
        0, 0, "", False, True, "", "",
    )  # fmt: skip


def make(path: Path, rows: int, spread: float = 1.0) -> Database:
    """Random directions around one centre for each of 10 classes."""
    rng = np.random.default_rng(rows)
    centres = rng.normal(size=(10, DIM))
    space = FeatureSpace("made", "0" * 64, DIM, ("a",), 8, 64, 64, (0.5,) * 3, (0.5,) * 3, "", "mean")
    database = Database.create(path, space, {})
    with database.write("build", "tests") as transaction:
        transaction.add(
            [_segment(number, f"class {number % 10}") for number in range(rows)],
            centres[np.arange(rows) % 10] + spread * rng.normal(size=(rows, DIM)),
        )
        return transaction.commit()


def test_one_place_holds_several_databases_by_name(engine: str, tmp_path: Path) -> None:
    pets, cars = make(tmp_path / "pets.retdb", 20), make(tmp_path / "cars.retdb", 30)
    place = str(tmp_path / "engine")
    export_to_engine(pets, engine, place, None)
    with open_engine(f"{engine}:{place}") as index:
        assert (index.name, index.version, len(index)) == ("pets", 2, 20)
    export_to_engine(cars, engine, place, None)
    export_to_engine(cars, engine, f"{place}#cars-2", None)
    with pytest.raises(DatabaseError, match=r"E332(.|\n)*cars, cars-2, pets"):
        open_engine(f"{engine}:{place}")
    with open_engine(f"{engine}:{place}#cars-2") as index:
        assert (index.name, len(index)) == ("cars", 30)
    with pytest.raises(DatabaseError, match=r"E332(.|\n)*#zebras does not exist"):
        open_engine(f"{engine}:{place}#zebras")
    with pytest.raises(DatabaseError, match="E307"):
        export_to_engine(pets, engine, place, None)


def test_a_place_without_anything_is_told_and_not_made(engine: str, tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match=rf"E332(.|\n)*--to {engine}"):
        open_engine(f"{engine}:{tmp_path / 'nothing'}")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DatabaseError, match="E332"):
        export_to_engine(make(tmp_path / "a.retdb", 5), engine, str(tmp_path / "file"), None)


def test_without_its_library_an_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"E331(.|\n)*retclip\[qdrant\]"):
        open_engine("qdrant:folder")
    with pytest.raises(InputError, match=r"E331(.|\n)*retclip\[lancedb\]"):
        open_engine("lancedb:folder")


def test_other_peoples_tables_are_refused(tmp_path: Path) -> None:
    _installed("lancedb")
    import lancedb

    lancedb.connect(tmp_path / "l").create_table("pets", [{"vector": [1.0, 2.0]}])
    with pytest.raises(DatabaseError, match="E334"):
        open_engine(f"lancedb:{tmp_path / 'l'}")


def test_an_interrupted_export_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _installed("qdrant")
    from retclip.adapters.vector_engines import qdrant

    def cut(segment: StoredSegment) -> dict[str, Any]:
        if segment.segment_id == 11:
            raise KeyboardInterrupt
        return {}

    database, place = make(tmp_path / "pets.retdb", 20), str(tmp_path / "q")
    with monkeypatch.context() as patch:
        patch.setattr(qdrant, "_payload", cut)
        with pytest.raises(KeyboardInterrupt):
            export_to_engine(database, "qdrant", place, None)
    with pytest.raises(DatabaseError, match=r"E334(.|\n)*interrupted"):
        open_engine(f"qdrant:{place}")


def test_a_folder_that_another_program_has_open_is_explained(tmp_path: Path) -> None:
    _installed("qdrant")
    database, place = make(tmp_path / "pets.retdb", 20), str(tmp_path / "q")
    export_to_engine(database, "qdrant", place, None)
    with open_engine(f"qdrant:{place}"), pytest.raises(DatabaseError, match=r"E332(.|\n)*Qdrant server"):
        open_engine(f"qdrant:{place}")
    with open_engine(f"qdrant:{place}") as index:
        assert len(index) == 20


def test_a_server_that_does_not_answer_is_explained() -> None:
    _installed("qdrant")
    with pytest.raises(DatabaseError, match=r"E332(.|\n)*QDRANT_API_KEY"):
        open_engine("qdrant:http://127.0.0.1:9")


def test_an_index_of_the_engine_finds_almost_all(tmp_path: Path) -> None:
    """LanceDB's graph index against the exact search of the database, and exact again where it is passed over."""
    _installed("lancedb")
    import lancedb
    from lancedb.index import HnswSq

    database = make(tmp_path / "pets.retdb", 3000)
    export_to_engine(database, "lancedb", str(tmp_path / "l"), None)
    table = lancedb.connect(tmp_path / "l").open_table("pets")
    table.create_index("key", config=HnswSq(distance_type="dot", num_partitions=4))
    queries = np.random.default_rng(1).normal(size=(50, DIM)).astype(np.float32)
    wanted = database.search(queries, 10).segment_id
    near = open_engine(f"lancedb:{tmp_path / 'l'}", exact=False).search(queries, 10).segment_id
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(wanted.tolist(), near.tolist(), strict=True)])
    assert recall > 0.9
    exact = open_engine(f"lancedb:{tmp_path / 'l'}").search(queries, 10).segment_id
    np.testing.assert_array_equal(exact, wanted)


def test_one_class_that_crowds_out_the_others_does_not_hide_them(engine: str, tmp_path: Path) -> None:
    """A limit per class deep in the list: the engine is asked class by class."""
    database = make(tmp_path / "pets.retdb", 2000, spread=0.05)
    export_to_engine(database, engine, str(tmp_path / "e"), None)
    queries = np.stack([database.vectors([(0, row)])[0] for row in (0, 700, 1999)])
    with open_engine(f"{engine}:{tmp_path / 'e'}") as index:
        found = index.search(queries, 8, per_class_k=1)
    expected = database.search(queries, 8, per_class_k=1)
    np.testing.assert_array_equal(found.segment_id, expected.segment_id)
    assert all(len(set(row)) == 8 for row in found.class_id.tolist())
