"""Model libraries as installed: their versions, against those that the package asks for, without importing them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from retclip.core.errors import ModelError

# Distributions that adapters of a library import.
_DISTRIBUTIONS = {
    "grounding_dino": "transformers",
    "sam": "transformers",
    "sam2": "transformers",
    "segment_anything": "segment-anything",
    "open_clip": "open_clip_torch",
    "fcclip": "open_clip_torch",
    "timm": "timm",
}


@dataclass(frozen=True)
class Library:
    """A distribution: the version that is installed (empty = none) and what is asked for, e.g. `>=5.0`."""

    name: str
    installed: str
    wanted: str

    @property
    def fits(self) -> bool:
        """Whether the installed version is one of those asked for."""
        requirement = Requirement(self.name + self.wanted)
        return bool(self.installed) and requirement.specifier.contains(self.installed, prereleases=True)

    @property
    def problem(self) -> str:
        """What is wrong, in words."""
        return f"{self.name} {self.installed} is too old" if self.installed else f"{self.name} is not installed"

    @property
    def remedy(self) -> str:
        """The command that mends it."""
        return f"pip install -U '{self.name}{self.wanted}'"


def libraries() -> Iterator[Library]:
    """Every library that the package needs itself, not those of its extras."""
    for name, wanted in _requirements().items():
        yield Library(name, _installed(name), wanted)


def check_library(library: str) -> None:
    """Raises ModelError E206 when what the adapters of a library import is missing or too old."""
    name = _DISTRIBUTIONS.get(library, "")
    found = Library(name, _installed(name), _requirements().get(name, "")) if name else None
    if found is not None and not found.fits:
        raise ModelError("E206", f"{found.problem}.", why=f"'{library}' needs {name}{found.wanted}.", fix=found.remedy)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@cache
def _requirements() -> dict[str, str]:
    wanted = map(Requirement, requires("retclip") or ())
    return {item.name: str(item.specifier) for item in wanted if item.marker is None}
