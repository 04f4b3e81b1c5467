"""Settings -> objects. The one place that knows every implementation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from retclip.adapters.model_files import obtain_model
from retclip.core.errors import EmptyDatabase, InputError
from retclip.core.weight_files import file_sha256
from retclip.presets import EncoderSettings, Preset, ProposalSettings, load_preset, preset_from_mapping
from retclip.presets.model_cards import needed_model
from retclip.shards import Database

if TYPE_CHECKING:  # torch takes seconds to import; settings and databases are read without it
    import torch

    from retclip.core.vocabulary import Vocabulary
    from retclip.ports.encoders import DenseEncoder, TextEncoder
    from retclip.ports.neighbors import StoredClass
    from retclip.ports.proposals import MaskProposer
    from retclip.query.matching import LabelMap
    from retclip.query.pipeline import Models, RetrievalSegmenter, TrainedHead
    from retclip.segmenters.fcclip.encoder import FCCLIPEncoder
    from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter

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


def find_weights(settings: EncoderSettings) -> Path:
    """The encoder's weights: as given, in `RETCLIP_MODELS_DIR`, or from the hub. Raises ModelError."""
    return obtain_model(needed_model("encoder", settings)).path


def make_encoder(settings: EncoderSettings, device: str) -> DenseEncoder:
    """The image encoder of a preset, with its weights, on a device."""
    if settings.library == "fcclip":
        return _fcclip_encoder(_load_fcclip(settings, device), settings)
    weights = find_weights(settings)
    chosen = choose_device(device)
    from retclip.adapters.timm_backbone import load_timm_encoder

    return load_timm_encoder(settings, weights, chosen)


def make_text_tower(settings: EncoderSettings, device: str) -> TextEncoder | None:
    """The text tower of a preset's encoder; None where it has none."""
    if settings.library != "fcclip":
        return None
    return _fcclip_encoder(_load_fcclip(settings, device), settings)


def _load_fcclip(settings: EncoderSettings, device: str) -> FCCLIPSegmenter:
    weights = find_weights(settings)
    chosen = choose_device(device)
    from retclip.segmenters.fcclip.checkpoint import load_fcclip
    from retclip.segmenters.fcclip.preprocessing import Resolution
    from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter, SegmenterSettings

    resolution = Resolution(settings.short_side, settings.long_side)
    model = load_fcclip(weights, settings.model, chosen)
    return FCCLIPSegmenter(model, SegmenterSettings(training_names=frozenset(), resolution=resolution))


def _fcclip_encoder(segmenter: FCCLIPSegmenter, settings: EncoderSettings) -> FCCLIPEncoder:
    from retclip.segmenters.fcclip.encoder import FCCLIPEncoder
    from retclip.segmenters.fcclip.variants import variant_named

    return FCCLIPEncoder(segmenter, settings.model, variant_named(settings.model).text)


def make_models(preset: Preset, proposer: MaskProposer | None, device: str) -> Models:
    """The networks of a preset; `proposer` takes the place of the preset's own."""
    from retclip.query.pipeline import Models

    if preset.encoder.library != "fcclip":
        return Models(make_encoder(preset.encoder, device), proposer or make_proposer(preset.proposals, None))
    segmenter = _load_fcclip(preset.encoder, device)
    encoder = _fcclip_encoder(segmenter, preset.encoder)
    if proposer is not None or preset.proposals.kind != "fcclip":
        return Models(encoder, proposer or make_proposer(preset.proposals, None), encoder)
    from retclip.segmenters.fcclip.proposer import FCCLIPProposer

    return Models(encoder, FCCLIPProposer(segmenter), encoder, trained_head(preset))


def trained_head(preset: Preset) -> TrainedHead | None:
    """The classifier of the preset's proposer; None for proposers without one."""
    if preset.proposals.kind != "fcclip":
        return None
    from retclip.query.pipeline import TrainedHead
    from retclip.vocabularies import load_vocabulary

    classes = load_vocabulary(preset.proposals.training_classes)
    digest = file_sha256(find_weights(preset.encoder))
    return TrainedHead(frozenset(name for category in classes for name in category.names), digest)


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


class LabelMatcher:
    """Finds which stored classes answer for which asked ones, as the preset says.

    Names are compared first. The text tower is loaded, once, only when names leave something over on both sides.
    """

    def __init__(self, preset: Preset, device: str) -> None:
        self._preset, self._device = preset, device

    def match(self, vocabulary: Vocabulary, stored: Sequence[StoredClass]) -> LabelMap:
        """Match stored classes to the categories of a vocabulary."""
        from retclip.query.matching import match_labels

        labels = match_labels(vocabulary, stored)
        unanswered = any(found.method == "none" for found in labels.matches)
        if not unanswered or len(labels.column) == len(stored) or self._text is None:
            return labels
        return match_labels(vocabulary, stored, self._text, self._preset.retrieval.label_match)

    @cached_property
    def _text(self) -> TextEncoder | None:
        return make_text_tower(self._preset.encoder, self._device)


def make_segmenter(
    database: Database, vocabulary: Vocabulary | None, preset: Preset, masks: Path | None, device: str
) -> RetrievalSegmenter:
    """A segmenter over one database version; without a vocabulary it asks for every stored class."""
    from retclip.query.matching import vocabulary_of
    from retclip.query.pipeline import RetrievalSegmenter

    models = make_models(preset, None if masks is None else make_proposer(preset.proposals, masks), device)
    if vocabulary is None:
        if not database.classes:
            raise EmptyDatabase(database.name, database.version)
        vocabulary = vocabulary_of(f"{database.name}@{database.version}", database.classes)
    return RetrievalSegmenter(models, database, vocabulary, preset)
