"""Numbers of official implementations: where they lie, and how a missing file is treated."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from tests.absence import absent

REPOSITORY = Path(__file__).resolve().parents[1]


def goldens_folder() -> Path:
    """$RETCLIP_GOLDENS, else the shared goldens beside the repository, else the compact subset in tests/golden."""
    if chosen := os.environ.get("RETCLIP_GOLDENS"):
        return Path(chosen)
    shared = REPOSITORY.parent / "shared" / "goldens"
    return shared if shared.is_dir() else REPOSITORY / "tests" / "golden"


@dataclass(frozen=True)
class Goldens:
    """One set of reference numbers; every width, shape and name is read from its files."""

    folder: Path

    def path(self, name: str) -> Path:
        """A file of the set; skips the test where the set lacks it, unless RETCLIP_REQUIRE_DATA=1."""
        path = self.folder / name
        if not path.exists():
            absent(f"{path} is absent; set RETCLIP_GOLDENS to the folder that contains `{self.folder.name}`")
        return path

    def arrays(self, name: str) -> dict[str, Tensor]:
        with safe_open(self.path(name), "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 -- no mapping

    def metadata(self, name: str) -> dict[str, str]:
        with safe_open(self.path(name), "pt") as file:
            found: dict[str, str] = file.metadata()
            return found

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())
