"""Panoptic and instance ground truth in COCO's format, made from the raw trees of ADE20K and Cityscapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError
from retclip.core.files import prepare_folder, write_bytes, write_json
from retclip.core.images import read_annotation
from retclip.core.rle import encode_mask, mask_box
from retclip.core.vocabulary import Vocabulary
from retclip.corpora.ade20k import Ade20kCorpus
from retclip.ports.corpora import CorpusImage
from retclip.reports.coco import categories, panoptic_png
from retclip.vocabularies import load_vocabulary

# Published sizes; a tree with another number of pictures is incomplete.
COUNTS = {
    ("ade20k-panoptic", "train"): 20_210,
    ("ade20k-panoptic", "val"): 2_000,
    ("cityscapes", "train"): 2_975,
    ("cityscapes", "val"): 500,
}
# Cityscapes' own label ids of the 19 evaluated classes, in the order of train ids.
_CITY_LABELS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_FIRST_INSTANCE = 1000  # smaller values are classes; of a thing class they mean an unseparated group


@dataclass(frozen=True)
class RawSegment:
    """One segment of a raw tree: (H, W) bool mask, category id, thing or stuff, crowd or not."""

    mask: npt.NDArray[np.bool_]
    category_id: int
    is_thing: bool
    is_crowd: bool = False


@dataclass(frozen=True)
class RawImage:
    """One picture of a raw tree; `read` gives its (height, width) and segments, of which later ones lie on top."""

    image_id: str
    file_name: str
    read: Callable[[], tuple[tuple[int, int], list[RawSegment]]]


@dataclass(frozen=True)
class Prepared:
    """What was written: files, and how many pictures, segments and instances they hold."""

    panoptic: Path
    instances: Path
    images: int
    segments: int
    things: int


def prepare(dataset: str, root: Path, split: str, incomplete: bool, progress: Callable[[int, int], None]) -> Prepared:
    """Write `<stem>.json`, `<stem>/*.png` and the instance JSON of a set into its own tree.

    Args:
        dataset: `ade20k-panoptic` or `cityscapes`.
        incomplete: accept another number of pictures than the published one.
        progress: called with (done, total).

    Raises:
        InputError: E160 for a set that needs no preparation, E162 for a wrong number of pictures, E103 from readers.
    """
    if dataset == "ade20k-panoptic":
        images, vocabulary, stem = _ade20k(root, split), load_vocabulary("@ade150"), root / f"ade20k_panoptic_{split}"
    elif dataset == "cityscapes":
        images, vocabulary = _cityscapes(root, split), load_vocabulary("@cityscapes19")
        stem = root / "gtFine" / f"cityscapes_panoptic_{split}"
    else:
        known = sorted({name for name, _ in COUNTS})
        raise InputError("E160", f"'{dataset}' needs no preparation.", why=f"Prepared are {', '.join(known)}.")
    expected = COUNTS.get((dataset, split))
    if expected is not None and len(images) != expected and not incomplete:
        why = f"The {split} split of {dataset} was published with {expected:,}."
        fix = "Unpack the whole archive, or pass --incomplete to go on with what is there."
        raise InputError("E162", f"{root} holds {len(images):,} pictures.", why=why, fix=fix)
    return _write(images, vocabulary, stem, progress)


def _write(
    images: Sequence[RawImage], vocabulary: Vocabulary, stem: Path, progress: Callable[[int, int], None]
) -> Prepared:
    prepare_folder(stem)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    for done, image in enumerate(images, start=1):
        ids, segments = paste(*image.read())
        name = f"{Path(image.file_name).stem}.png"
        write_bytes(stem / name, panoptic_png(ids))
        height, width = ids.shape
        listed.append({"id": image.image_id, "file_name": image.file_name, "width": width, "height": height})
        infos = [_segment_info(number, ids == number, segment) for number, segment in segments]
        annotations.append({"image_id": image.image_id, "file_name": name, "segments_info": infos})
        for info, (number, segment) in zip(infos, segments, strict=True):
            if segment.is_thing:
                counts = encode_mask(ids == number).decode("ascii")
                own = {"image_id": image.image_id, "segmentation": {"size": [height, width], "counts": counts}}
                instances.append({**info, **own, "id": len(instances) + 1})
        progress(done, len(images))
    known = categories(vocabulary)
    panoptic = write_json(
        stem.with_suffix(".json"), {"images": listed, "annotations": annotations, "categories": known}
    )
    things = [entry for entry in known if entry["isthing"]]
    path = stem.with_name(f"{stem.name.replace('panoptic', 'instance')}.json")
    write_json(path, {"images": listed, "annotations": instances, "categories": things})
    return Prepared(panoptic, path, len(listed), sum(len(a["segments_info"]) for a in annotations), len(instances))


def paste(
    size: tuple[int, int], segments: Sequence[RawSegment]
) -> tuple[npt.NDArray[np.int32], list[tuple[int, RawSegment]]]:
    """Lay segments over one another: (H, W) ids counted from 1, and those of which a pixel is left to see."""
    ids = np.zeros(size, np.int32)
    for number, segment in enumerate(segments, start=1):
        ids[segment.mask] = number
    left = set(np.unique(ids).tolist())
    return ids, [(number, segment) for number, segment in enumerate(segments, start=1) if number in left]


def _segment_info(number: int, mask: npt.NDArray[np.bool_], segment: RawSegment) -> dict[str, Any]:
    x0, y0, x1, y1 = mask_box(mask)
    return {
        "id": number,
        "category_id": segment.category_id,
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": int(segment.is_crowd),
    }


def _ade20k(root: Path, split: str) -> list[RawImage]:
    """Stuff from the class images, things from the instance images, things on top (FC-CLIP's preparation)."""
    corpus = Ade20kCorpus(root, split)
    needed = [root / "annotations_instance" / corpus.split, root / "ade20k_instance_catid_mapping.txt"]
    lost = [str(path) for path in needed if not path.exists()]
    if lost:
        why = "Class images alone cannot separate instances."
        fix = "Add annotations_instance.tar of the 2017 challenge and the mapping file of FC-CLIP or Mask2Former."
        raise InputError("E162", f"{', '.join(lost)} does not exist.", why=why, fix=fix)
    number = {known.raw: place for place, known in enumerate(corpus.classes)}
    maps = root / "annotations" / corpus.split
    photos = [
        path for path in sorted((root / "images" / corpus.split).glob("*.jpg")) if (maps / f"{path.stem}.png").is_file()
    ]

    def read(path: Path) -> tuple[tuple[int, int], list[RawSegment]]:
        height, width = read_annotation(maps / f"{path.stem}.png").shape[:2]
        image = CorpusImage(corpus.name, path.stem, path, corpus.split)
        regions = corpus.regions(image, (height, width), "masks")
        raw = [RawSegment(region.mask, number[region.label], region.is_thing) for region in regions]
        return (height, width), sorted(raw, key=lambda segment: segment.is_thing)

    return [RawImage(path.stem, path.name, partial(read, path)) for path in photos]


def _cityscapes(root: Path, split: str) -> list[RawImage]:
    found = sorted((root / "gtFine" / split).glob("*/*_gtFine_instanceIds.png"))
    if not found:
        why = f"Looked for {root / 'gtFine' / split}/<city>/*_gtFine_instanceIds.png."
        raise InputError(
            "E162", f"No Cityscapes annotations in {root}.", why=why, fix="Unpack gtFine_trainvaltest.zip."
        )

    def read(path: Path) -> tuple[tuple[int, int], list[RawSegment]]:
        ids = read_annotation(path).astype(np.int32)
        return (ids.shape[0], ids.shape[1]), list(city_segments(ids))

    stems = [path.name.removesuffix("_gtFine_instanceIds.png") for path in found]
    return [
        RawImage(stem, f"{stem}_leftImg8bit.png", partial(read, path)) for stem, path in zip(stems, found, strict=True)
    ]


def city_segments(ids: npt.NDArray[np.int32]) -> Iterator[RawSegment]:
    """Segments of an instance image: label * 1000 + number, or the bare label of stuff and of unseparated things."""
    train_id = {label: place for place, label in enumerate(_CITY_LABELS)}
    is_thing = [category.is_thing for category in load_vocabulary("@cityscapes19")]
    for value in np.unique(ids).tolist():
        column = train_id.get(value // _FIRST_INSTANCE if value >= _FIRST_INSTANCE else value)
        if column is not None:
            crowd = is_thing[column] and value < _FIRST_INSTANCE
            yield RawSegment(ids == value, column, is_thing[column], crowd)
