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


@pytest.fixture(scope="session")
def goldens():
    return Goldens(goldens_folder() / "fcclip")
