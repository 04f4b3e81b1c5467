"""What a CLIP's weights do not say: architecture, activation, normalisation and tokenizer, from a name or a folder."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_clip import get_pretrained_cfg, list_models, list_pretrained_tags_by_model
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.factory import get_model_config

from retclip.core.errors import ModelError, first_line
from retclip.presets import EncoderSettings

Channels = tuple[float, float, float]

CONFIG_FILE = "open_clip_config.json"
# As open_clip's own hub folders name them; a timm folder's `model.safetensors` may be the image tower alone.
_WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pt",
)
# The largest published configuration has 2 kB; more than this describes no network.
_MOST_CONFIG_BYTES = 1_000_000
_LEAST_STD = 1e-3


@dataclass(frozen=True)
class Release:
    """One CLIP on this machine.

    Attributes:
        model: architecture name of the settings.
        config: open_clip's model configuration, `quick_gelu` as these weights need it.
        weights: the weights file.
        folder: where tokenizer files lie; None for a release by name.
        mean, std: RGB normalisation on the 0..1 scale.
        mirror: hub repository with safetensors of the same weights, empty if none is known.
    """

    model: str
    config: Mapping[str, Any]
    weights: Path
    folder: Path | None
    mean: Channels
    std: Channels
    mirror: str


def find_release(settings: EncoderSettings, path: Path) -> Release:
    """The release behind a weights file of a named architecture, or inside a folder with its own configuration.

    Raises:
        ModelError: E201 the folder holds no weights, E208 unknown architecture or release, E221 unusable configuration.
    """
    tag: Mapping[str, Any] = get_pretrained_cfg(settings.model, settings.pretrained or "openai")
    described = tag if settings.pretrained else {}
    if path.is_dir():
        file = _read_config(path / CONFIG_FILE)
        config: Mapping[str, Any] = file["model_cfg"]
        preprocessing = {**described, **file.get("preprocess_cfg", {})}
        weights, folder = _weights_in(path), path
    else:
        config, preprocessing = _named_config(settings, described), dict(described)
        weights, folder = path, None
    return Release(
        model=settings.model,
        config={**config, "quick_gelu": _needs_quick_gelu(settings.pretrained, config, described)},
        weights=weights,
        folder=folder,
        mean=_channels(preprocessing.get("mean", OPENAI_DATASET_MEAN), path, least=0.0),
        std=_channels(preprocessing.get("std", OPENAI_DATASET_STD), path, least=_LEAST_STD),
        mirror=str(tag.get("hf_hub", "")).strip("/"),
    )


def unusable(path: Path, why: str) -> ModelError:
    """The error for a configuration that describes no CLIP."""
    return ModelError(
        "E221", f"{path} does not describe a CLIP.", why=why, fix="Take the file as open_clip or its hub publish it."
    )


def _needs_quick_gelu(pretrained: str, config: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
    """OpenAI's weights always; others as their configuration says, or open_clip's list where the name is silent."""
    return pretrained == "openai" or bool(config.get("quick_gelu", described.get("quick_gelu", False)))


def _named_config(settings: EncoderSettings, described: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] | None = get_model_config(settings.model) if ":" not in settings.model else None
    if config is None:
        close = ", ".join(difflib.get_close_matches(settings.model, list_models(), n=3)) or "none"
        raise ModelError(
            "E208",
            f"open_clip knows no model '{settings.model}'.",
            why=f"Close names: {close}.",
            fix=f"Correct encoder.model, or give a folder with {CONFIG_FILE}.",
        )
    if settings.pretrained and not described:
        known = ", ".join(list_pretrained_tags_by_model(settings.model)) or "none"
        raise ModelError(
            "E208",
            f"open_clip knows no release '{settings.pretrained}' of '{settings.model}'.",
            why=f"Known are: {known}. The release decides activation and normalisation.",
            fix="Correct encoder.pretrained, or leave it out for weights of your own.",
        )
    return config


def _read_config(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise unusable(path, f"It is larger than {_MOST_CONFIG_BYTES:,} bytes.")
        file = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(path, first_line(error)) from error
    parts = file.get("model_cfg") if isinstance(file, dict) else None
    for name, part in (("model_cfg", parts), *((key, (parts or {}).get(key)) for key in ("vision_cfg", "text_cfg"))):
        if not isinstance(part, dict):
            raise unusable(path, f"It has no table '{name}'.")
    if not isinstance(file.get("preprocess_cfg", {}), dict):
        raise unusable(path, "'preprocess_cfg' is no table.")
    return dict(file)


def _weights_in(folder: Path) -> Path:
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        "E201",
        f"There are no CLIP weights in {folder}.",
        why=f"Looked for {', '.join(_WEIGHT_FILES)}.",
        fix="Copy the whole folder of the model.",
    )


def _channels(values: Any, path: Path, least: float) -> Channels:
    fits = isinstance(values, (list, tuple)) and len(values) == 3
    if not fits or not all(isinstance(value, (int, float)) and least <= value <= 1 for value in values):
        raise unusable(path / CONFIG_FILE, f"mean and std need three numbers from {least} to 1, got {values}.")
    return float(values[0]), float(values[1]), float(values[2])
