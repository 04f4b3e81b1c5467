"""SAM and SAM 2 (Ravi et al. 2024) from the transformers library, from folders as the hub has them.

The hub's folders of SAM 2 describe its video network; of it only what still pictures need is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.sam import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers.models.sam2 import (
    Sam2Config,
    Sam2HieraDetConfig,
    Sam2MaskDecoderConfig,
    Sam2Model,
    Sam2PromptEncoderConfig,
    Sam2VisionConfig,
)

from retclip.adapters.promptable import PromptedMasker, Rgb, SquareInput
from retclip.adapters.transformers_network import load_network, read_json
from retclip.core.errors import ModelError, first_line, translated
from retclip.core.weights import read_weights, tensors_sha256
from retclip.presets import MaskerSettings

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
# Folders have one of them or both; both say how pixels are normalised.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
# Sizes that repeat modules; a network has no more modules than its file has tensors.
_REPETITIONS = ("num_hidden_layers", "iou_head_depth", "blocks_per_stage", "num_multimask_outputs")


@dataclass(frozen=True)
class _Family:
    """Classes of one generation, and what its `config.json` calls itself."""

    model_types: tuple[str, ...]
    network: type[PreTrainedModel]
    config: type[PretrainedConfig]
    parts: Mapping[str, type[PretrainedConfig]]
    padded: bool


_FAMILIES = {
    "sam": _Family(
        ("sam",),
        SamModel,
        SamConfig,
        {
            "vision_config": SamVisionConfig,
            "prompt_encoder_config": SamPromptEncoderConfig,
            "mask_decoder_config": SamMaskDecoderConfig,
        },
        padded=True,
    ),
    "sam2": _Family(
        ("sam2", "sam2_video"),
        Sam2Model,
        Sam2Config,
        {
            "vision_config": Sam2VisionConfig,
            "backbone_config": Sam2HieraDetConfig,
            "prompt_encoder_config": Sam2PromptEncoderConfig,
            "mask_decoder_config": Sam2MaskDecoderConfig,
        },
        padded=False,
    ),
}


class TransformersSam:
    """A `PromptableNetwork` on SamModel or Sam2Model, which are asked alike."""

    def __init__(self, model: Any, square: SquareInput, name: str, device: torch.device) -> None:
        self._model = model.to(device)
        self.device = device
        self.square = square
        self.weights_sha256 = tensors_sha256(model.state_dict())
        self.name = f"{name}@{self.weights_sha256[:8]}"

    def embed(self, pixels: Tensor) -> Any:
        """(1, 3, side, side) -> one feature map (SAM) or a list of three (SAM 2)."""
        return self._model.get_image_embeddings(pixels)

    def decode_boxes(self, embedding: Any, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See `PromptableNetwork`. SAM 2 takes its best multi-mask where the single mask is unstable, as released."""
        output = self._model(image_embeddings=embedding, input_boxes=boxes[None], multimask_output=False)
        return output.pred_masks[0, :, 0], output.iou_scores[0, :, 0]

    def decode_points(self, embedding: Any, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `PromptableNetwork`."""
        labels = torch.ones(1, len(points), 1, dtype=torch.int, device=points.device)
        output = self._model(
            image_embeddings=embedding, input_points=points[None, :, None], input_labels=labels, multimask_output=True
        )
        return output.pred_masks[0], output.iou_scores[0]


def load_transformers_sam(settings: MaskerSettings, folder: Path, device: torch.device) -> PromptedMasker:
    """Build the network that a local folder describes (`settings.library`: sam or sam2); nothing is downloaded.

    Raises:
        ModelError: E201 for no folder; E202 for missing or damaged files; E215 for a description that is of no such
            network; E207 when the weights are not those of the description.
    """
    family = _FAMILIES[settings.library]
    _require_files(folder)
    document = read_json(folder / _CONFIG)
    tensors = read_weights(folder / _WEIGHTS)
    config, side = _configuration(family, document, tensors, folder / _CONFIG)
    mean, std = _normalisation(folder)
    model = load_network(family.network, config, tensors, folder / _WEIGHTS, settings.model)
    square = SquareInput(side, mean, std, family.padded)
    return PromptedMasker(
        TransformersSam(model, square, settings.model.rstrip("/").split("/")[-1], device), settings.boxes
    )


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelError(
            "E201",
            f"There is no folder {folder}.",
            why="It was named as the masker's.",
            fix="Correct masker.weights in the preset.",
        )
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _PROCESSORS):
        missing.append(" or ".join(_PROCESSORS))
    if missing:
        raise ModelError(
            "E202",
            f"{folder} is no complete masker: {', '.join(missing)} missing.",
            why="A masker is a folder as transformers saves it.",
            fix="Copy or download the whole folder again.",
        )


def _configuration(
    family: _Family, document: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path
) -> tuple[PretrainedConfig, int]:
    """The network's sizes and the side of its input, tried out on the meta device, where nothing is computed."""
    if document.get("model_type") not in family.model_types:
        raise _misdescribed(path, f"model_type is '{document.get('model_type')}', not {family.model_types[0]}.")
    # Descriptions come from strangers; constructors and layers raise any type for sizes that do not go together.
    with translated(lambda error: _misdescribed(path, first_line(error))):
        tables = _part_tables(document)
        if sum(map(_repetitions, tables.values())) > len(tensors):
            raise ValueError(f"more layers than the {len(tensors)} tensors of the weights")
        parts = {name: kind(**_own(kind, tables[name])) for name, kind in family.parts.items()}
        if "backbone_config" in parts:
            parts["vision_config"].backbone_config = parts.pop("backbone_config")
        config = family.config(**parts)
        side = int(parts["prompt_encoder_config"].image_size)
        needed = _rehearse(family, config, side)
    held = sum(tensor.numel() for tensor in tensors.values())
    # Memory is taken only for what the file can fill; which tensors differ is said later, by name.
    if needed > 2 * held:
        raise _misdescribed(path, f"It describes {needed:,} weights, {_WEIGHTS} holds {held:,}.")
    return config, side


def _part_tables(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The parts of a description; SAM 2 keeps its backbone inside the vision part."""
    vision = document["vision_config"]
    return {
        "vision_config": vision,
        "backbone_config": vision.get("backbone_config") or {},
        "prompt_encoder_config": document["prompt_encoder_config"],
        "mask_decoder_config": document["mask_decoder_config"],
    }


def _repetitions(table: Mapping[str, Any]) -> int:
    counts = [table.get(key) or 0 for key in _REPETITIONS]
    return sum(sum(count) if isinstance(count, list) else count for count in counts)


def _own(kind: type[PretrainedConfig], table: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that size this part; others may name code to load, such as an attention kernel of the hub."""
    names = {field.name for field in fields(kind)} - {field.name for field in fields(PretrainedConfig)}
    return {key: value for key, value in table.items() if key in names - {"backbone_config"}}


def _rehearse(family: _Family, config: PretrainedConfig, side: int) -> int:
    """Number of weights of a network whose parts go together: one box on one picture, in shapes alone."""
    with torch.device("meta"), torch.inference_mode():
        model = family.network(config)
        output = model(
            pixel_values=torch.zeros(1, 3, side, side), input_boxes=torch.zeros(1, 1, 4), multimask_output=False
        )
    assert output.pred_masks.shape[:3] == output.iou_scores.shape == (1, 1, 1)
    return sum(parameter.numel() for parameter in model.parameters())


def _normalisation(folder: Path) -> tuple[Rgb, Rgb]:
    """Mean and standard deviation on the 0..255 scale; files give them on the scale of 0..1."""
    path = next(folder / name for name in _PROCESSORS if (folder / name).is_file())
    document = read_json(path)
    table = document.get("image_processor", document)
    try:
        mean, std = ([255 * float(value) for value in table[key]] for key in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise _misdescribed(path, f"image_mean and image_std must be three numbers: {first_line(error)}") from error
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise _misdescribed(path, f"image_mean {mean} and image_std {std} normalise no RGB picture.")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _misdescribed(path: Path, why: str) -> ModelError:
    return ModelError(
        "E215",
        f"{path} does not describe the masker of the preset.",
        why=why,
        fix="Name in masker.library and masker.model what the folder holds, or copy it again.",
    )
