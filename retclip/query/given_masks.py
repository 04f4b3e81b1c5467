"""Proposals read from files: ground truth or another program's masks, one label image per picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from retclip.core.errors import InputError
from retclip.core.images import Picture, read_annotation
from retclip.core.masks import MaskSet
from retclip.core.panoptic import rgb_to_ids
from retclip.core.vocabulary import Vocabulary
from retclip.ports.proposals import Proposals

# A dense mask per value: a photo taken for a label image would ask for tens of gigabytes.
MOST_MASKS = 2_000


class GivenMasks:
    """Reads `<folder>/<picture stem>.png`: COCO panoptic colours or grey ids; 0 is nothing, every other id a mask."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise InputError(
                "E150",
                f"{folder} is not a folder of masks.",
                why="--proposals takes a kind, such as regions or sam-grid, or a folder with one PNG per picture.",
                fix="Check --proposals.",
            )
        self._folder = folder

    def propose(self, pictures: Sequence[Picture], vocabulary: Vocabulary) -> list[Proposals]:
        """Masks per picture, in ascending order of ids. Raises InputError for a missing or misfitting file."""
        return [Proposals(self._read(picture)) for picture in pictures]

    def _read(self, picture: Picture) -> MaskSet:
        path = self._folder / f"{Path(picture.name).stem}.png"
        if not path.is_file():
            raise InputError(
                "E151",
                f"{picture.name} has no masks.",
                why=f"{path} does not exist.",
                fix="Add the file, or leave the picture out.",
            )
        values = read_annotation(path)
        ids = rgb_to_ids(values.astype(np.uint8)) if values.ndim == 3 else values
        if ids.shape != picture.size:
            raise InputError(
                "E151",
                f"The masks of {picture.name} do not fit it.",
                why=f"Masks are {ids.shape[0]} x {ids.shape[1]}, the picture is {picture.size[0]} x {picture.size[1]}.",
                fix="Save them at the size of the upright picture.",
            )
        present = [value for value in np.unique(ids).tolist() if value != 0]
        if len(present) > MOST_MASKS:
            raise InputError(
                "E151",
                f"{path} holds {len(present):,} different values; is it a photo?",
                why=f"Every value that is not 0 is one mask, at most {MOST_MASKS:,} a picture.",
                fix="Save a label image: a PNG without compression loss or smoothing.",
            )
        masks = np.stack([ids == value for value in present]) if present else np.zeros((0, *picture.size), dtype=bool)
        return MaskSet(torch.from_numpy(masks), picture.size, "given")
