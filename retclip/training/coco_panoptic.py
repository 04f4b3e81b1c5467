"""COCO panoptic annotations as training samples."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from retclip.core.errors import InputError
from retclip.core.images import read_picture
from retclip.core.panoptic import rgb_to_ids
from retclip.core.vocabulary import Vocabulary
from retclip.training.augmentation import Ids, JitterSettings, Pixels, jitter
from retclip.training.losses import Targets
from retclip.training.order import EndlessShuffle


@dataclass(frozen=True)
class Folders:
    """images: the photos; annotations: the JSON file; segments: the PNG files with segment ids as colours."""

    images: Path
    annotations: Path
    segments: Path

    @classmethod
    def of_coco(cls, root: Path, split: str) -> Folders:
        """COCO's own layout: `<split>/`, `annotations/panoptic_<split>.json` and the folder of that name beside it.

        Raises:
            InputError: E103 naming what is missing.
        """
        year = "" if split[-1:].isdigit() else "2017"
        annotations = root / "annotations" / f"panoptic_{split}{year}.json"
        folders = cls(root / f"{split}{year}", annotations, annotations.with_suffix(""))
        for path in (folders.images, folders.annotations, folders.segments):
            if not path.exists():
                raise InputError(
                    "E103",
                    f"{path} does not exist.",
                    why="Training reads <split>/, annotations/panoptic_<split>.json and annotations/panoptic_<split>/.",
                    fix="Check --root and --split; unpack the archives.",
                )
        return folders


@dataclass(frozen=True)
class PanopticPicture:
    """One annotated photo: files, and column of the vocabulary per segment id, crowds left out."""

    image: Path
    segments: Path
    columns: dict[int, int]


@dataclass(frozen=True)
class Sample:
    """image (3, S, S) uint8 RGB and its targets."""

    image: Tensor
    targets: Targets


def read_annotations(folders: Folders, vocabulary: Vocabulary) -> list[PanopticPicture]:
    """Annotated photos in file order.

    Args:
        folders: of the data set.
        vocabulary: its category ids are the `category_id` of the JSON.

    Raises:
        InputError: E171 unreadable or wrong JSON, E172 a category that the vocabulary lacks, E173 a file name that
            leaves its folder.
    """
    try:
        data = json.loads(folders.annotations.read_text())
        names = {image["id"]: image["file_name"] for image in data["images"]}
        column_of = {category.id: column for column, category in enumerate(vocabulary)}
        return [_picture(folders, names, entry, column_of) for entry in data["annotations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "E171",
            f"{folders.annotations} is no COCO panoptic annotation file.",
            why=f"{type(error).__name__}: {error}",
            fix="Give panoptic_train2017.json or a file of the same layout.",
        ) from error


def _picture(
    folders: Folders, names: dict[int, str], entry: dict[str, Any], column_of: dict[int, int]
) -> PanopticPicture:
    columns = {}
    for segment in entry["segments_info"]:
        category = segment["category_id"]
        if category not in column_of:
            raise InputError(
                "E172",
                f"Category {category} of {entry['file_name']} is not in the vocabulary.",
                why="Training needs a name for every annotated class.",
                fix="Use the data set's own vocabulary.",
            )
        if not segment.get("iscrowd", 0):
            columns[segment["id"]] = column_of[category]
    image, segments = names[entry["image_id"]], entry["file_name"]
    for name in (image, segments):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(
                "E173",
                f"File name {name} leaves its folder.",
                why="Annotation files are not trusted.",
                fix="Correct the annotation file.",
            )
    return PanopticPicture(folders.images / image, folders.segments / segments, columns)


def targets_of(ids: Ids, columns: dict[int, int]) -> Targets:
    """Masks of the annotated segments that (H, W) ids still show; a crop may have lost some."""
    present = [number for number in np.unique(ids).tolist() if number in columns]
    masks = torch.from_numpy(ids)[None] == torch.tensor(present, dtype=torch.int32).view(-1, 1, 1)
    return Targets(torch.tensor([columns[number] for number in present], dtype=torch.long), masks)


class JitteredStream(Dataset[Sample]):
    """An endless, shuffled, augmented stream: sample k is a function of (seed, k) alone.

    So a resumed run, or one with other worker processes, sees the same samples.

    Args:
        pictures: annotated photos.
        settings: augmentation.
        seed: of order and augmentation.
    """

    def __init__(self, pictures: list[PanopticPicture], settings: JitterSettings, seed: int) -> None:
        self.pictures, self.settings, self.seed = pictures, settings, seed
        self._order = EndlessShuffle(len(pictures), seed)

    def __getitem__(self, index: int) -> Sample:
        picture = self.pictures[self._order[index]]
        pixels, ids = read_pair(picture)
        pixels, ids = jitter(pixels, ids, self.settings, np.random.default_rng([self.seed, 1, index]))
        return Sample(torch.from_numpy(pixels).permute(2, 0, 1), targets_of(ids, picture.columns))


def read_pair(picture: PanopticPicture) -> tuple[Pixels, Ids]:
    """Photo (H, W, 3) uint8 and segment ids (H, W) int32. Raises ImageError (E111..E114), InputError (E174)."""
    pixels = read_picture(picture.image).pixels
    ids = rgb_to_ids(read_picture(picture.segments).pixels)
    if pixels.shape[:2] != ids.shape:
        raise InputError(
            "E174",
            f"{picture.segments} does not fit {picture.image}.",
            why=f"Sizes are {ids.shape} and {pixels.shape[:2]}.",
            fix="Check that annotations and photos belong together.",
        )
    return pixels, ids
