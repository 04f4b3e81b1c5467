"""Grounding DINO from a folder as transformers saves it, or from a checkpoint as its authors released it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
)

from retclip.adapters.grounding_dino.detector import GroundingDino
from retclip.adapters.grounding_dino.network import PromptedNetwork, token_spans
from retclip.adapters.grounding_dino.original_checkpoint import ORIGINAL_MODELS, original_config, renamed_tensors
from retclip.adapters.grounding_dino.prompts import compose_prompts
from retclip.adapters.transformers_network import load_network, read_json
from retclip.core.errors import ModelError, first_line, translated
from retclip.core.weights import read_weights, tensors_sha256
from retclip.presets.networks import DetectorSettings

_WEIGHTS = "model.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")

# Both networks find the ends of phrases by these ids and no others: those of bert-base-uncased.
_SEPARATORS = {"[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}


def load_grounding_dino(settings: DetectorSettings, weights: Path, device: torch.device) -> GroundingDino:
    """Build the detector from local files alone; nothing is downloaded and no code in files is run.

    Args:
        settings: `model` names the detector and, for an original checkpoint, the network's size.
        weights: a folder with config.json, model.safetensors, preprocessor_config.json and a tokenizer
            (Grounding DINO, MM-Grounding-DINO and what shares their architecture); or an original checkpoint
            (.pth), beside which lies bert-base-uncased's tokenizer: `vocab.txt`, or a folder `bert-base-uncased`.
        device: where the network runs.

    Raises:
        ModelError: E201 for no file or folder, E202 for missing or half files, E204 for files with code, E207 for
            weights of another network, E211 for a network of another kind, E212 for a tokenizer of another network,
            E214 for an original checkpoint of an unknown size.
    """
    if not weights.exists():
        raise ModelError(
            "E201",
            f"There is no file or folder {weights}.",
            why="It was named as the detector's.",
            fix="Check the path.",
        )
    load = _from_folder if weights.is_dir() else _from_original
    return load(settings, weights, device)


def _from_folder(settings: DetectorSettings, folder: Path, device: torch.device) -> GroundingDino:
    _require_files(folder, (("config.json",), (_WEIGHTS,), _PROCESSOR_FILES, _TOKENIZER_FILES), settings.model)
    description = read_json(folder / "config.json")
    mm = _is_mm(description, folder)
    kind = MMGroundingDinoForObjectDetection if mm else GroundingDinoForObjectDetection
    config_kind = MMGroundingDinoConfig if mm else GroundingDinoConfig
    # The library validates field by field and raises several types, some of them its own.
    with translated(lambda error: _other_network(folder, first_line(error))):
        config = config_kind.from_dict(description)
    tokenizer = _read_tokenizer(folder, config)
    # Settings of the wrong type surface as whatever the first use of them raises.
    with translated(lambda error: _damaged(folder, "image processor", error)):
        image_processor = GroundingDinoImageProcessor.from_pretrained(folder, local_files_only=True)
    tensors = read_weights(folder / _WEIGHTS)
    network = load_network(kind, config, tensors, folder / _WEIGHTS, settings.model)
    prompted = PromptedNetwork(network, image_processor, tokenizer, device)
    return GroundingDino(prompted, settings, tensors_sha256(tensors))


def _from_original(settings: DetectorSettings, path: Path, device: torch.device) -> GroundingDino:
    model = settings.model.rsplit("/", 1)[-1]
    if model not in ORIGINAL_MODELS:
        raise ModelError(
            "E214",
            f"An original checkpoint of '{settings.model}' cannot be read.",
            why=f"{path} is one file, and its network's size is known for {' and '.join(ORIGINAL_MODELS)} alone.",
            fix="Set detector.model to one of them, or detector.weights to a folder with config.json.",
        )
    config = original_config(model)
    tokenizer = _read_tokenizer(_tokenizer_beside(path), config)
    tensors = read_weights(path)
    network = load_network(GroundingDinoForObjectDetection, config, renamed_tensors(tensors), path, settings.model)
    prompted = PromptedNetwork(network, GroundingDinoImageProcessor(), tokenizer, device)
    return GroundingDino(prompted, settings, tensors_sha256(tensors))


def _require_files(folder: Path, wanted: Sequence[Sequence[str]], name: str) -> None:
    """Each entry lists files of which one has to be there."""
    missing = [" or ".join(names) for names in wanted if not any((folder / name).is_file() for name in names)]
    if missing:
        raise ModelError(
            "E202",
            f"{folder} lacks files of '{name}'.",
            why=f"Missing: {', '.join(missing)}.",
            fix="Copy or download the whole folder.",
        )


def _is_mm(description: Mapping[str, Any], folder: Path) -> bool:
    """Whether config.json describes MM-Grounding-DINO; refuses everything but the two with Swin and BERT."""
    # A closed list: other backbones bring loaders of their own, some of which download.
    parts = {
        "model_type": (description, ("grounding-dino", "mm-grounding-dino")),
        "backbone_config.model_type": (description.get("backbone_config") or {}, ("swin",)),
        "text_config.model_type": (description.get("text_config") or {}, ("bert",)),
    }
    for place, (part, known) in parts.items():
        found = part.get("model_type", known[0]) if isinstance(part, dict) else part
        if found not in known:
            raise _other_network(folder, f"{place} is {found!r}; known: {', '.join(known)}.")
    return description.get("model_type") == "mm-grounding-dino"


def _other_network(folder: Path, why: str) -> ModelError:
    return ModelError(
        "E211",
        f"{folder / 'config.json'} describes no Grounding DINO that can be built.",
        why=why,
        fix="Use a folder of IDEA-Research/grounding-dino-* or openmmlab-community/mm_grounding_dino_*.",
    )


def _damaged(folder: Path, what: str, error: Exception) -> ModelError:
    return ModelError(
        "E202",
        f"The {what} in {folder} cannot be read.",
        why=first_line(error),
        fix="Copy or download the files again.",
    )


def count_prompts(phrases: Sequence[str], settings: DetectorSettings, weights: Path) -> int:
    """How many prompts ask for all phrases once; of the detector's files only the tokenizer is read.

    Raises:
        ModelError: E202 for a missing or damaged tokenizer.
    """
    folder = weights if weights.is_dir() else _tokenizer_beside(weights)
    tokenizer = _open_tokenizer(folder)
    return len(compose_prompts(phrases, lambda texts: token_spans(tokenizer, texts), settings.chunk_tokens))


def _tokenizer_beside(checkpoint: Path) -> Path:
    """The folder with the tokenizer of an original checkpoint."""
    own = checkpoint.parent / "bert-base-uncased"
    folder = own if own.is_dir() else checkpoint.parent
    _require_files(folder, (_TOKENIZER_FILES,), f"{checkpoint.name} (the tokenizer of bert-base-uncased)")
    return folder


def _open_tokenizer(folder: Path) -> BertTokenizer:
    # The tokenizer's parser raises plain Exception for files that it cannot make sense of.
    with translated(lambda error: _damaged(folder, "tokenizer", error)):
        return BertTokenizer.from_pretrained(folder, local_files_only=True)


def _read_tokenizer(folder: Path, config: Any) -> BertTokenizer:
    tokenizer = _open_tokenizer(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in _SEPARATORS}
    largest = max(tokenizer.get_vocab().values())
    if ids != _SEPARATORS or largest >= config.text_config.vocab_size:
        raise ModelError(
            "E212",
            f"The tokenizer in {folder} belongs to another network.",
            why=f"It numbers the ends of phrases {ids} instead of {_SEPARATORS}, or has more than "
            f"{config.text_config.vocab_size} words.",
            fix="Use the tokenizer files of the detector's own folder, those of bert-base-uncased.",
        )
    return tokenizer
