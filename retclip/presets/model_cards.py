"""The catalogue of networks that presets name: where their weights come from, how large they are, under which licence.

Read without any model library, so that a missing network is named at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from retclip.core.errors import require
from retclip.presets.networks import DetectorSettings, EncoderSettings, MaskerSettings
from retclip.presets.reader import CATALOGUE, from_table
from retclip.presets.settings import Preset

Role = Literal["encoder", "detector", "masker"]
HUB = "hub"
# Libraries that name a network by its repository.
_NAMED_BY_REPOSITORY = ("grounding_dino", "sam", "sam2")


@dataclass(frozen=True)
class ModelCard:
    """One network and its files.

    Attributes:
        kind: `detector`, `masker`, `clip` (an encoder with a text tower), `backbone` (without one) or `fcclip`.
        library, model, pretrained: as in the settings of networks.
        repository: on the hub; empty = on none, or only the library knows.
        weights: names of the weights file, the best first; one of them is needed.
        files: needed beside it, `a|b` = either; a network with such files is used as a folder, any other as its
            weights file.
        extras: taken along when the repository has them.
        model_types: what `config.json` may call the network; empty = not asked.
        license: of the weights, as their authors state it.
        megabytes: of the weights file, roughly; 0 = unknown.
        gated: the hub asks for consent first, and may refuse.
        note: what else a user should know.
        signature: shapes of telling tensors by the end of their name; a safetensors file must hold one of them.
    """

    kind: Literal["detector", "masker", "clip", "backbone", "fcclip"]
    library: str
    model: str
    pretrained: str = ""
    repository: str = ""
    weights: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    license: str = ""
    megabytes: int = 0
    gated: bool = False
    note: str = ""
    signature: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.megabytes >= 0, "megabytes", ">= 0", self.megabytes)
        beside = [name for names in self.files for name in names.split("|")]
        for name in (*self.weights, *beside, *self.extras):
            # Names become paths on this machine.
            require("/" not in name and "\\" not in name and name not in ("", ".", ".."), "file", "a name", name)

    @property
    def name(self) -> str:
        """For people and manifests: the repository, else library, model and release."""
        return self.repository or "/".join(part for part in (self.library, self.model, self.pretrained) if part)


@dataclass(frozen=True)
class NeededModel:
    """A network that a preset takes: for what, which one, and the file or folder that the preset names, or `hub`."""

    role: Role
    card: ModelCard
    given: str

    @property
    def from_hub(self) -> bool:
        """Whether the preset leaves the place to us."""
        return self.given == HUB

    @property
    def on_hub(self) -> bool:
        """Whether a download can bring it."""
        return self.from_hub and bool(self.card.repository)

    @property
    def name(self) -> str:
        """The network as the user knows it: its name on the hub, or the file asked for."""
        return self.card.name if self.from_hub else self.given


@cache
def model_cards() -> tuple[ModelCard, ...]:
    """All networks of the catalogue, in its order."""
    tables = _catalogue()
    return tuple(
        from_table(ModelCard, _named({**tables["library"].get(entry["library"], {}), **entry}), CATALOGUE)
        for entry in tables["model"]
    )


@cache
def _catalogue() -> Mapping[str, Any]:
    return tomllib.loads((files("retclip.presets") / CATALOGUE).read_text(encoding="utf-8"))


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {"repository": entry["model"], **entry} if entry["library"] in _NAMED_BY_REPOSITORY else entry


def card_for(library: str, model: str, pretrained: str = "") -> ModelCard:
    """The card of a network; one that the catalogue lacks has what every network of its library has."""
    for card in model_cards():
        if (card.library, card.model, card.pretrained) == (library, model, pretrained):
            return card
    entry = {**_catalogue()["library"][library], "library": library, "model": model, "pretrained": pretrained}
    return from_table(ModelCard, _named(entry), CATALOGUE)


def needed_model(role: Role, settings: EncoderSettings | DetectorSettings | MaskerSettings) -> NeededModel:
    """What the settings of one network ask for."""
    pretrained = settings.pretrained if isinstance(settings, EncoderSettings) else ""
    card = card_for(settings.library, settings.model, pretrained)
    return NeededModel(role, replace(card, license=settings.license or card.license), settings.weights)


def models_of(preset: Preset) -> tuple[NeededModel, ...]:
    """Every network that a preset names: the encoder, then detector and masker where it has them."""
    parts: tuple[tuple[Role, EncoderSettings | DetectorSettings | MaskerSettings], ...] = (
        ("encoder", preset.encoder),
        ("detector", preset.detector),
        ("masker", preset.masker),
    )
    return tuple(needed_model(role, settings) for role, settings in parts if settings.library != "none")


def segmenting_roles(preset: Preset) -> tuple[Role, ...]:
    """The networks that asking takes; building a database from labels takes all of `models_of`."""
    found: dict[str, tuple[Role, ...]] = {"gdino-sam": ("detector", "masker"), "sam-grid": ("masker",)}
    return ("encoder", *found.get(preset.proposals.kind, ()))
