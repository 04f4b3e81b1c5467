"""Fixtures that find data which is too large for the repository."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.absence import absent
from tests.goldens import Goldens, goldens_folder

# The same examples on every run and machine, and no example fails because a machine was busy.
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")

REPOSITORY = Path(__file__).resolve().parents[1]


def _data_folder(variable: str, default: str) -> Path:
    """Folder named by an environment variable, else beside the repository; skips unless RETCLIP_REQUIRE_DATA=1."""
    folder = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / default)
    if folder.is_dir():
        return folder
    absent(f"{folder} does not exist; set {variable} to the folder of the data")


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Databases and caches of tests stay out of the user's own home, and no test asks the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETCLIP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RETCLIP_OFFLINE", "1")
        yield


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real photos and annotations, each folder with its licence."""
    return _data_folder("RETCLIP_TEST_DATA", "data")


@pytest.fixture(scope="session")
def photos(test_data: Path) -> Path:
    """COCO panoptic subset: 100 train and 60 val photos with id images."""
    return test_data / "coco_panoptic"


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    """Numbers computed by official implementations of FC-CLIP and of the metrics."""
    return Goldens(goldens_folder() / "fcclip")
