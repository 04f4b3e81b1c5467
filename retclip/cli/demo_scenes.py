"""The demo's scenes: objects that are known to be there, exemplars made of them, and what a result calls them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retclip.core.files import prepare_folder, write_bytes
from retclip.core.images import read_annotation, read_picture
from retclip.core.panoptic import rgb_to_ids
from retclip.indexer.units import thumbnail
from retclip.reports.captions import EXPERT_NAMES
from retclip.reports.demo_page import Exemplar, Naming

if TYPE_CHECKING:
    from retclip.evaluation.truth import EvaluationSet

MASK_ENDING = ".mask.png"


@dataclass(frozen=True)
class KnownObject:
    """An object of the truth: its class, the picture it is in, and its visible part as (H, W) bool."""

    label: str
    photo: Path
    mask: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(np.count_nonzero(self.mask))


def objects_of(dataset: EvaluationSet, label: str, without: str | None = None) -> list[KnownObject]:
    """The largest object of a class in every picture that shows one, the largest first.

    Args:
        without: leave out pictures that show this class too.
    """
    numbers = {category.name: category.id for category in dataset.vocabulary}
    found = []
    for image in dataset.images:
        present = {segment.category_id for segment in image.segments}
        if numbers[label] not in present or (without is not None and numbers[without] in present):
            continue
        ids = dataset.truth(image).ids
        masks = [ids == segment.id for segment in image.segments if segment.category_id == numbers[label]]
        found.append(max((KnownObject(label, image.path, mask) for mask in masks), key=lambda known: known.area))
    return sorted(found, key=lambda known: (-known.area, known.photo.name))


def file_exemplar(known: KnownObject, folder: Path) -> None:
    """Put a photo into a class folder, with the mask of its object beside it (`retclip.corpora.folder`)."""
    prepare_folder(folder)
    buffer = io.BytesIO()
    Image.fromarray(known.mask.astype(np.uint8) * 255).save(buffer, "PNG")
    write_bytes(folder / known.photo.name, known.photo.read_bytes())
    write_bytes(folder / f"{known.photo.stem}{MASK_ENDING}", buffer.getvalue())


def move_exemplar(stem: str, source: Path, target: Path) -> tuple[Path, Path]:
    """Move a photo and its mask to another class folder; returns where they were."""
    prepare_folder(target)
    files = source / f"{stem}.png", source / f"{stem}{MASK_ENDING}"
    for path in files:
        path.rename(target / path.name)
    return files


def in_full_light(known: KnownObject) -> bytes:
    """JPEG of the whole picture, dimmed around the object."""
    height, width = known.mask.shape
    return thumbnail(read_picture(known.photo).pixels, known.mask, (0, 0, width, height), max(height, width))


def name_of(known: KnownObject, results: Path) -> Naming:
    """What the segment that covers most of an object is called, read from the files of `retclip segment`."""
    folder = results / known.photo.stem
    ids = rgb_to_ids(read_annotation(folder / "panoptic.png").astype(np.uint8))
    covering = int(np.bincount(ids[known.mask]).argmax())
    document = json.loads((folder / "segments.json").read_bytes())
    found = next((segment for segment in document["segments"] if segment["id"] == covering), None)
    if found is None:
        return Naming(known.photo.stem, known.label, "", 0.0, "", ())
    exemplars = tuple(_exemplar(neighbor) for neighbor in found["neighbors"])
    experts = {expert.replace("-", "_"): name for expert, name in EXPERT_NAMES.items()}
    decided_by = experts[found["decided_by"]]
    return Naming(known.photo.stem, known.label, found["label"], found["score"], decided_by, exemplars)


def _exemplar(neighbor: dict[str, Any]) -> Exemplar:
    origin = f"{neighbor['source']}/{neighbor['image_id']}"
    return Exemplar(int(neighbor["segment_id"], 16), neighbor["label"], origin, neighbor["distance"])
