"""Settings of a run: frozen values with a strict TOML reader. A preset names models and numbers, never code."""

from retclip.presets.networks import DetectorSettings, EncoderSettings, MaskerSettings
from retclip.presets.reader import available_presets, load_preset, preset_from_mapping, preset_to_mapping
from retclip.presets.settings import (
    FusionSettings,
    IndexSettings,
    MergeSettings,
    Preset,
    ProposalSettings,
    RetrievalSettings,
)

__all__ = [
    "DetectorSettings",
    "EncoderSettings",
    "FusionSettings",
    "IndexSettings",
    "MaskerSettings",
    "MergeSettings",
    "Preset",
    "ProposalSettings",
    "RetrievalSettings",
    "available_presets",
    "load_preset",
    "preset_from_mapping",
    "preset_to_mapping",
]
