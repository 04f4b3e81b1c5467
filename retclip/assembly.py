"""Settings -> objects. The one place that knows every implementation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from retclip.core.errors import EmptyDatabase, InputError, ModelError
from retclip.presets import EncoderSettings, Preset, ProposalSettings, load_preset, preset_from_mapping
from retclip.shards import Database

if TYPE_CHECKING:  # torch takes seconds to import; settings and databases are read without it
    import torch

    from retclip.adapters.timm_backbone import TimmEncoder
    from retclip.core.vocabulary import Vocabulary
    from retclip.ports.proposals import MaskProposer
    from retclip.query.pipeline import RetrievalSegmenter

DEFAULT_PRESET = "cpu"


def choose_preset(name_or_file: str | None, database: Database | None) -> Preset:
    """The preset that was asked for, else the one the database was built with, else the default."""
    if name_or_file is not None:
        return load_preset(name_or_file)
    if database is not None and database.preset:
        return preset_from_mapping(database.preset, f"database {database.name}")
    return load_preset(DEFAULT_PRESET)


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU when there is one. Raises InputError for a device that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError(f"'{device.type}' cannot run a network")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "E148", f"Device '{name}' cannot be used.", why=str(error).splitlines()[0], fix="Use --device auto or cpu."
        ) from error
    return device


def find_weights(settings: EncoderSettings) -> Path | None:
    """The weights file: as given, else by name in `RETCLIP_MODELS_DIR`; None for `hub`. Raises ModelError E201."""
    if settings.weights == "hub":
        return None
    # os.path: Path.expanduser raises for a user that this machine does not have, as presets of others name them.
    given = Path(os.path.expanduser(settings.weights))  # noqa: PTH111
    folder = os.environ.get("RETCLIP_MODELS_DIR")
    places: list[Path] = [given, *((Path(folder) / given, Path(folder) / given.name) if folder else ())]
    for place in places:
        if place.is_file():
            return place
    raise ModelError(
        "E201",
        f"The weights '{settings.weights}' of '{settings.model}' are not on this machine.",
        why="Looked at: " + ", ".join(str(place) for place in places) + ".",
        fix=f"Put {given.name} into a folder and set RETCLIP_MODELS_DIR to it.",
    )


def make_encoder(settings: EncoderSettings, device: str) -> TimmEncoder:
    """The image encoder of a preset, with its weights, on a device."""
    weights = find_weights(settings)
    chosen = choose_device(device)
    from retclip.adapters.timm_backbone import load_timm_encoder

    return load_timm_encoder(settings, weights, chosen)


def make_proposer(settings: ProposalSettings, masks: Path | None) -> MaskProposer:
    """Where proposals come from: `masks` names a folder of given ones, else the preset decides."""
    if masks is not None:
        from retclip.query.given_masks import GivenMasks

        return GivenMasks(masks)
    if settings.kind == "given":
        raise InputError(
            "E150",
            "This preset takes given masks, but none were named.",
            why="proposals.kind is 'given'.",
            fix="Add --proposals DIR, or use --proposals regions.",
        )
    from retclip.adapters.region_hierarchy import RegionHierarchy

    return RegionHierarchy(settings)


def make_segmenter(
    database: Database, vocabulary: Vocabulary | None, preset: Preset, masks: Path | None, device: str
) -> RetrievalSegmenter:
    """A segmenter over one database version; without a vocabulary it asks for every stored class."""
    from retclip.query.matching import vocabulary_of
    from retclip.query.pipeline import Models, RetrievalSegmenter

    proposer = make_proposer(preset.proposals, masks)
    models = Models(make_encoder(preset.encoder, device), proposer)
    if vocabulary is None:
        if not database.classes:
            raise EmptyDatabase(database.name, database.version)
        vocabulary = vocabulary_of(f"{database.name}@{database.version}", database.classes)
    return RetrievalSegmenter(models, database, vocabulary, preset)
