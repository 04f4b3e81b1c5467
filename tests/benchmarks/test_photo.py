"""The figures of benchmarks/photo on real photos: 100 that teach, 60 that ask."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from retclip.corpora import open_corpus
from retclip.shards import Database, verify
from retclip.vocabularies import load_vocabulary

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "photo"

pytestmark = pytest.mark.photos


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    """The benchmark itself; its files import one another by their plain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        import accuracy

        yield accuracy
        for name in ("accuracy", "common"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measured(
    accuracy: ModuleType, photos: Path, test_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Database, Any]:
    """Preset, database of the train photos, keys of the ground-truth masks of the val photos; built once."""
    common = sys.modules["common"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETCLIP_MODELS_DIR", str(test_data / "weights"))
        preset, encoder = common.prepare(common.arguments("").parse_args(["--root", str(photos)]))
    folder = tmp_path_factory.mktemp("photo") / "photo.retdb"
    database = common.build_database(photos, "train", preset, encoder, folder)
    return preset, database, common.ground_truth_queries(open_corpus("coco", photos, "val"), encoder)


def test_the_train_photos_give_1111_segments(measured: tuple[Any, Database, Any]) -> None:
    _, database, _ = measured
    assert len(database) == 1111
    assert database.image_count == 100
    assert verify(database.path, deep=True).ok


def test_retrieval_reaches_the_measured_accuracy(accuracy: ModuleType, measured: tuple[Any, Database, Any]) -> None:
    preset, database, queries = measured
    names = load_vocabulary("@coco133").names
    truth = np.array([names.index(label) for label in queries.label])
    assert len(truth) == 622

    def right(**settings: Any) -> float:
        chosen = replace(preset.retrieval, **settings)
        return float((accuracy.predictions(database, queries, chosen) == truth).mean())

    assert right(rule="minmax", k=1) >= 0.46
    assert right(rule="voting") >= 0.49
    # By the paper's rule the nearest neighbour wins whatever k is.
    assert right(rule="minmax", k=32) == right(rule="minmax", k=1)
