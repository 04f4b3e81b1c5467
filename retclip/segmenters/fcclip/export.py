"""Export of the image side: one graph from normalised images to masks and vectors, for any vocabulary."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from retclip.core.errors import InputError, require
from retclip.segmenters.fcclip.model import FCCLIP
from retclip.segmenters.fcclip.preprocessing import DIVISOR

OUTPUTS = ("mask_logits", "class_vectors", "embeddings", "dense")


class ImageSide(nn.Module):
    """Everything that depends on the image alone; classes are named afterwards by products with text rows."""

    def __init__(self, model: FCCLIP) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised images (B, 3, H, W) -> mask_logits, class_vectors, embeddings, dense (see `FCCLIP`)."""
        output = self.model(images)
        final = output.predictions[-1]
        embeddings, _ = self.model.embed(output.dense, final.mask_logits)
        return final.mask_logits, final.class_vectors, embeddings, output.dense


def export_image_side(model: FCCLIP, size: tuple[int, int], path: Path, batch: int = 1) -> None:
    """Write the image side for one input shape.

    Args:
        model: on the CPU.
        size: (height, width) of the padded images, multiples of 32.
        path: `.onnx`, or `.pt2` for a `torch.export` program.
        batch: images per call.

    Raises:
        InputError: E177 another file ending.
    """
    require(size[0] % DIVISOR == 0 and size[1] % DIVISOR == 0, "size", f"multiples of {DIVISOR}", size)
    example = (torch.zeros(batch, 3, *size),)
    side = ImageSide(model)
    if path.suffix == ".pt2":
        with torch.no_grad():
            torch.export.save(torch.export.export(side, example), path)
    elif path.suffix == ".onnx":
        torch.onnx.export(
            side,
            example,
            path,
            input_names=["images"],
            output_names=list(OUTPUTS),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    else:
        raise InputError(
            "E177",
            f"Cannot export to {path.name}.",
            why="The file ending names the format.",
            fix="Use a name ending in .onnx or .pt2.",
        )
