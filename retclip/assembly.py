"""Settings -> objects. The one place that knows every implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from retclip.adapters.model_files import Found, model_records, obtain_models
from retclip.core.errors import InputError
from retclip.core.weight_files import file_sha256
from retclip.presets import EncoderSettings, Preset, load_preset, preset_from_mapping
from retclip.presets.model_cards import Role, segmenting_roles
from retclip.shards import Database

if TYPE_CHECKING:  # torch takes seconds to import; settings and databases are read without it
    import torch

    from retclip.adapters.promptable import PromptedMasker
    from retclip.adapters.vector_engines.index import EngineIndex
    from retclip.core.vocabulary import Vocabulary
    from retclip.indexer.regions import RegionSource
    from retclip.ports.corpora import Corpus
    from retclip.ports.detection import Detector
    from retclip.ports.encoders import DenseEncoder, TextEncoder
    from retclip.ports.neighbors import StoredClass
    from retclip.ports.proposals import MaskProposer
    from retclip.query.matching import LabelMap
    from retclip.query.pipeline import Models, RetrievalSegmenter
    from retclip.query.question import TrainedHead
    from retclip.segmenters.fcclip.encoder import FCCLIPEncoder
    from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter
    from retclip.shards.layers import LayeredIndex, Layering

    AskedIndex = Database | LayeredIndex | EngineIndex

RegionKinds = Literal["masks", "boxes", "found"]
DEFAULT_PRESET = "cpu"


def open_index(reference: str, layering: Layering) -> AskedIndex:
    """What `--db` means: databases by name or path, several separated by commas, or one inside a vector engine."""
    from retclip.adapters.vector_engines import open_engine
    from retclip.shards.catalog import is_engine
    from retclip.shards.layers import open_layers

    alone = is_engine(reference) and "," not in reference
    return open_engine(reference) if alone else open_layers(reference, layering)


def choose_preset(name_or_file: str | None, database: AskedIndex | None) -> Preset:
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


def make_encoder(preset: Preset, device: str) -> DenseEncoder:
    """The image encoder of a preset, with its weights, on a device."""
    return _load_encoder(preset, obtain_models(preset, ["encoder"])["encoder"], choose_device(device))


def make_text_tower(preset: Preset, device: str) -> TextEncoder | None:
    """The text tower of a preset's encoder; None where it has none."""
    return None if preset.encoder.library == "timm" else _text_tower(make_encoder(preset, device))


def _text_tower(encoder: DenseEncoder) -> TextEncoder | None:
    """An encoder with a text tower is one itself."""
    from retclip.ports.encoders import TextEncoder

    return encoder if isinstance(encoder, TextEncoder) else None


def _load_encoder(preset: Preset, found: Found, device: torch.device) -> DenseEncoder:
    settings = preset.encoder
    if settings.library == "fcclip":
        return _fcclip_encoder(_load_fcclip(settings, found, device), settings)
    if settings.library == "open_clip":
        from retclip.adapters.open_clip import load_open_clip

        return load_open_clip(settings, found.path, device)
    from retclip.adapters.timm_backbone import load_timm_encoder

    return load_timm_encoder(settings, found.path, device)


def _load_fcclip(settings: EncoderSettings, found: Found, device: torch.device) -> FCCLIPSegmenter:
    from retclip.adapters.open_clip.prompts import shared_store
    from retclip.segmenters.fcclip.checkpoint import load_fcclip
    from retclip.segmenters.fcclip.preprocessing import Resolution
    from retclip.segmenters.fcclip.segmenter import FCCLIPSegmenter, SegmenterSettings

    resolution = Resolution(settings.short_side, settings.long_side)
    model = load_fcclip(found.path, settings.model, device)
    store = shared_store(model.backbone.clip_model)
    return FCCLIPSegmenter(model, SegmenterSettings(training_names=frozenset(), resolution=resolution), store)


def _fcclip_encoder(segmenter: FCCLIPSegmenter, settings: EncoderSettings) -> FCCLIPEncoder:
    from retclip.segmenters.fcclip.encoder import FCCLIPEncoder
    from retclip.segmenters.fcclip.variants import variant_named

    return FCCLIPEncoder(segmenter, settings.model, variant_named(settings.model).text)


def _load_detector(preset: Preset, found: Found, device: torch.device) -> Detector:
    from retclip.adapters.grounding_dino import load_grounding_dino

    return load_grounding_dino(preset.detector, found.path, device)


def _load_masker(preset: Preset, found: Found, device: torch.device) -> PromptedMasker:
    if preset.masker.library == "segment_anything":
        from retclip.adapters.segment_anything import load_segment_anything

        return load_segment_anything(preset.masker, found.path, device)
    from retclip.adapters.transformers_sam import load_transformers_sam

    return load_transformers_sam(preset.masker, found.path, device)


def load_model(preset: Preset, found: Found, device: str) -> object:
    """Build one network of a preset from its files, whatever it is for: the proof that they are the right ones."""
    loaders = {"encoder": _load_encoder, "detector": _load_detector, "masker": _load_masker}
    return loaders[found.needed.role](preset, found, choose_device(device))


def make_models(preset: Preset, proposer: MaskProposer | None, device: str) -> Models:
    """The networks of a preset; `proposer` takes the place of the preset's own."""
    found = obtain_models(preset, segmenting_roles(preset) if proposer is None else ["encoder"])
    # What is missing is told above, before anything imports torch.
    from retclip.query.pipeline import Models

    chosen = choose_device(device)
    if proposer is None and preset.proposals.kind == "fcclip":
        from retclip.segmenters.fcclip.proposer import FCCLIPProposer

        segmenter = _load_fcclip(preset.encoder, found["encoder"], chosen)
        encoder = _fcclip_encoder(segmenter, preset.encoder)
        return Models(encoder, FCCLIPProposer(segmenter), encoder, trained_head(preset))
    network = _load_encoder(preset, found["encoder"], chosen)
    return Models(network, proposer or _make_proposer(preset, found, chosen), _text_tower(network))


def _make_proposer(preset: Preset, found: Mapping[Role, Found], device: torch.device) -> MaskProposer:
    if preset.proposals.kind == "given":
        raise InputError(
            "E150",
            "This preset takes given masks, but none were named.",
            why="proposals.kind is 'given'.",
            fix="Add --proposals DIR, or use --proposals regions.",
        )
    if preset.proposals.kind == "regions":
        from retclip.adapters.region_hierarchy import RegionHierarchy

        return RegionHierarchy(preset.proposals)
    masker = _load_masker(preset, found["masker"], device)
    if preset.proposals.kind == "sam-grid":
        from retclip.adapters.sam_grid import SamGrid

        return SamGrid(masker, preset.proposals)
    from retclip.query.detected_masks import DetectedMasks

    return DetectedMasks(_load_detector(preset, found["detector"], device), masker, preset.proposals)


def trained_head(preset: Preset) -> TrainedHead | None:
    """The classifier of the preset's proposer; None for proposers without one."""
    if preset.proposals.kind != "fcclip":
        return None
    from retclip.query.question import TrainedHead
    from retclip.vocabularies import load_vocabulary

    classes = load_vocabulary(preset.proposals.training_classes)
    digest = file_sha256(obtain_models(preset, ["encoder"])["encoder"].weights)
    return TrainedHead(frozenset(name for category in classes for name in category.names), digest)


@dataclass(frozen=True)
class IndexModels:
    """What a build needs: an encoder, where regions come from, and the files of all networks that take part."""

    encoder: DenseEncoder
    source: RegionSource
    found: Mapping[Role, Found]

    def records(self) -> tuple[Mapping[str, str], ...]:
        """The networks as a database keeps them in mind; their files are read whole for their digests."""
        return tuple(model_records(self.found))


def make_index_models(preset: Preset, corpus: Corpus, regions: RegionKinds, device: str) -> IndexModels:
    """The networks of a build; a masker also turns annotated boxes into masks (a folder's boxes are whole photos)."""
    masked = regions == "boxes" and preset.masker.library != "none" and corpus.name != "folder"
    roles: dict[str, list[Role]] = {"found": ["encoder", "detector", "masker"], "boxes": ["encoder", "masker"]}
    found = obtain_models(preset, roles[regions] if masked or regions == "found" else ["encoder"])
    from retclip.indexer.regions import AnnotatedRegions, FoundRegions, MaskedBoxes

    chosen = choose_device(device)
    encoder = _load_encoder(preset, found["encoder"], chosen)
    source: RegionSource = AnnotatedRegions(corpus, "masks" if regions == "masks" else "boxes")
    if masked:
        source = MaskedBoxes(corpus, _load_masker(preset, found["masker"], chosen))
    if regions == "found":
        detector = _load_detector(preset, found["detector"], chosen)
        masker = _load_masker(preset, found["masker"], chosen)
        source = FoundRegions(detector, masker, preset.index.box_threshold)
    return IndexModels(encoder, source, found)


def count_detector_prompts(preset: Preset, vocabulary: Vocabulary) -> int | None:
    """Prompts in which the preset's detector reads a class list; None without a detector on this machine."""
    from retclip.adapters.model_files import find_model
    from retclip.presets.model_cards import needed_model

    if preset.detector.library == "none" or (found := find_model(needed_model("detector", preset.detector))) is None:
        return None
    from retclip.adapters.grounding_dino import count_prompts

    return count_prompts(vocabulary.names, preset.detector, found.path)


class LabelMatcher:
    """Finds which stored classes answer for which asked ones, as the preset says.

    Names are compared first. The text tower is loaded, once, only when it is needed.
    """

    def __init__(self, preset: Preset, device: str) -> None:
        self._preset, self._device = preset, device

    def match(self, vocabulary: Vocabulary, stored: Sequence[StoredClass], *, until_answered: bool = False) -> LabelMap:
        """Match stored classes to the categories of a vocabulary, as a segmenter does.

        `until_answered` stops at names when they give every category a stored class: enough to tell what is missing.
        """
        from retclip.query.matching import match_labels

        labels = match_labels(vocabulary, stored)
        answered = all(found.method != "none" for found in labels.matches)
        if len(labels.column) == len(stored) or (until_answered and answered) or self._text is None:
            return labels
        return match_labels(vocabulary, stored, self._text, self._preset.retrieval.label_match)

    @cached_property
    def _text(self) -> TextEncoder | None:
        return make_text_tower(self._preset, self._device)


def _given_masks(folder: Path) -> MaskProposer:
    from retclip.query.given_masks import GivenMasks

    return GivenMasks(folder)


def make_segmenter(
    database: AskedIndex,
    vocabulary: Vocabulary | None,
    preset: Preset,
    masks: Path | None,
    device: str,
) -> RetrievalSegmenter:
    """A segmenter over one database version, or over several databases.

    Args:
        vocabulary: None asks for every stored class.
        masks: folder of given proposals, in place of the preset's own.
    """
    models = make_models(preset, None if masks is None else _given_masks(masks), device)
    from retclip.query.matching import stored_vocabulary
    from retclip.query.pipeline import RetrievalSegmenter

    asked = stored_vocabulary(database) if vocabulary is None else vocabulary
    return RetrievalSegmenter(models, database, asked, preset)
