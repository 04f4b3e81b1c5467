"""Numbers of official implementations: where they lie, and how a missing file is treated."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open

REPOSITORY = Path(__file__).parents[2]


def goldens_folder():
    """$RETCLIP_GOLDENS, else the shared goldens beside the repository, else the compact subset in this folder."""
    if chosen := os.environ.get("RETCLIP_GOLDENS"):
        return Path(chosen)
    shared = REPOSITORY.parent / "shared" / "goldens"
    return shared if shared.is_dir() else Path(__file__).parent


@dataclass(frozen=True)
class Goldens:
    """One set of reference numbers; every width, shape and name is read from its files."""

    folder: Path

    def path(self, name):
        path = self.folder / name
        if not path.exists():
            message = f"{path} is absent; set RETCLIP_GOLDENS to the folder that contains `fcclip`"
            if os.environ.get("RETCLIP_REQUIRE_DATA") == "1":
                pytest.fail(message)
            pytest.skip(message)
        return path

    def arrays(self, name):
        with safe_open(self.path(name), "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- no mapping

    def metadata(self, name):
        with safe_open(self.path(name), "pt") as file:
            return file.metadata()

    def json(self, name):
        return json.loads(self.path(name).read_text())


def pytest_generate_tests(metafunc):
    """Cases `e2e_*` and `full_*` are the folders that this set holds; a set without any asks for one that is absent."""
    for fixture, pattern in (("end_to_end_folder", "e2e_*"), ("full_folder", "full_*")):
        if fixture in metafunc.fixturenames:
            found = sorted(path.name for path in (goldens_folder() / "fcclip").glob(pattern))
            metafunc.parametrize(fixture, found or [pattern], scope="module")


@pytest.fixture(scope="session")
def goldens():
    return Goldens(goldens_folder() / "fcclip")


@pytest.fixture(scope="session")
def class_name_files():
    """Reader of the released class-name files: data set -> name lines of its valid classes, in file order."""
    root = os.environ.get("RETCLIP_TEST_DATA")
    folder = (Path(root) if root else REPOSITORY.parent / "shared" / "data") / "text" / "fcclip_class_names"
    if not folder.is_dir():
        message = f"{folder} is absent; set RETCLIP_TEST_DATA to the folder that contains `text`"
        if os.environ.get("RETCLIP_REQUIRE_DATA") == "1":
            pytest.fail(message)
        pytest.skip(message)

    def read(data_set):
        lines = (folder / f"{data_set}_with_prompt_eng.txt").read_text().splitlines()
        entries = [line.split(":", 1) for line in lines]
        return [names for number, names in entries if number != "0" and names != "invalid_class_id"]

    return read
