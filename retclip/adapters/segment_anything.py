"""SAM (Kirillov et al. 2023) from its authors' package, with the checkpoints they released."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from torch import Tensor

from retclip.adapters.promptable import PromptedMasker, SquareInput
from retclip.core.errors import ModelError
from retclip.core.weights import load_strictly, read_weights, tensors_sha256
from retclip.presets import MaskerSettings

ARCHITECTURES = ("vit_b", "vit_l", "vit_h")


class SegmentAnything:
    """A `PromptableNetwork` on the package's own modules."""

    def __init__(self, sam: Any, name: str, device: torch.device) -> None:
        self._sam = sam.to(device).eval().requires_grad_(False)
        self.device = device
        self.weights_sha256 = tensors_sha256(sam.state_dict())
        self.name = f"{name}@{self.weights_sha256[:8]}"
        mean, std = sam.pixel_mean.flatten().tolist(), sam.pixel_std.flatten().tolist()
        self.square = SquareInput(sam.image_encoder.img_size, tuple(mean), tuple(std), padded=True)

    def embed(self, pixels: Tensor) -> Tensor:
        """(1, 3, side, side) -> (1, C, side / 16, side / 16)."""
        embedding: Tensor = self._sam.image_encoder(pixels)
        return embedding

    def decode_boxes(self, embedding: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See `PromptableNetwork`."""
        logits, quality = self._decode(embedding, multimask=False, points=None, boxes=boxes)
        return logits[:, 0], quality[:, 0]

    def decode_points(self, embedding: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `PromptableNetwork`."""
        labels = torch.ones(len(points), 1, dtype=torch.int, device=points.device)
        return self._decode(embedding, multimask=True, points=(points[:, None], labels), boxes=None)

    def _decode(self, embedding: Tensor, *, multimask: bool, **prompts: Any) -> tuple[Tensor, Tensor]:
        """Logits (n, m, h, w) and predicted IoU (n, m)."""
        sparse, dense = self._sam.prompt_encoder(**prompts, masks=None)
        logits, quality = self._sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return logits, quality


def load_segment_anything(settings: MaskerSettings, weights: Path, device: torch.device) -> PromptedMasker:
    """Build `settings.model` (vit_b, vit_l, vit_h) with a released `.pth` file or its safetensors copy.

    Raises:
        ModelError: E208 for another architecture; as `read_weights`; E207 when the file does not fit.
    """
    if settings.model not in ARCHITECTURES:
        raise ModelError(
            "E208",
            f"segment-anything knows no model '{settings.model}'.",
            why=f"It has {', '.join(ARCHITECTURES)}.",
            fix="Correct masker.model in the preset.",
        )
    tensors = read_weights(weights)
    with torch.device("meta"):
        sam = sam_model_registry[settings.model]()
    fix = "Set masker.model to the architecture of the file: sam_vit_b_*, sam_vit_l_* or sam_vit_h_*."
    load_strictly(sam, tensors, weights, settings.model, fix)
    return PromptedMasker(SegmentAnything(sam, f"sam-{settings.model}", device), settings.boxes)
