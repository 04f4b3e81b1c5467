"""COCO files: panoptic maps, instances, and the categories both speak of."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from retclip.core.errors import require
from retclip.core.panoptic import ids_to_rgb
from retclip.core.results import SegmentationResult
from retclip.core.rle import encode_mask, mask_box
from retclip.core.vocabulary import Vocabulary
from retclip.reports.palette import category_color

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_UP = 2
_LEVEL = 1  # of zlib: 10 kB for a photo rather than 5, in a fifth of the time of level 6


def image_id(name: str) -> int | str:
    """The file's stem, as a number where it is one: `000000000139.jpg` is image 139 in COCO's own files."""
    stem = PurePath(name).stem
    return int(stem) if stem.isascii() and stem.isdecimal() else stem


def panoptic_png(ids: npt.NDArray[np.int32]) -> bytes:
    """PNG of a (H, W) id map in COCO panoptic colours, id = R + 256 G + 65536 B, 0 = unlabelled.

    Every row is stored as its difference to the row above ("Up", PNG specification, 9.2): regions reach over many rows,
    so that nearly all bytes are zero, and trying five filters for each row would cost several times as much.
    """
    height, width = ids.shape
    colours = ids_to_rgb(ids).reshape(height, 3 * width)
    rows = np.full((height, 1 + 3 * width), _UP, np.uint8)
    rows[:1, 1:] = colours[:1]
    np.subtract(colours[1:], colours[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB, not interlaced
    return _SIGNATURE + b"".join(
        [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), _LEVEL)), _chunk(b"IEND", b"")]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def panoptic_document(
    annotations: list[tuple[dict[str, Any], dict[str, Any]]], vocabulary: Vocabulary
) -> dict[str, Any]:
    """COCO panoptic JSON of any number of images.

    Args:
        annotations: pairs of image and annotation entries, as `panoptic_entry` makes them.
        vocabulary: the classes all of them were asked for.
    """
    return {
        "images": [image for image, _ in annotations],
        "annotations": [annotation for _, annotation in annotations],
        "categories": categories(vocabulary),
    }


def panoptic_entry(result: SegmentationResult, file_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """One image's entries in `images` and `annotations`; `file_name` is the PNG that holds its map."""
    annotation = {
        "image_id": image_id(result.image),
        "file_name": file_name,
        "segments_info": [
            {
                "id": segment.id,
                "category_id": segment.category_id,
                "isthing": int(segment.is_thing),
                "area": segment.area,
                "bbox": list(segment.box),
                "iscrowd": 0,
                "score": round(float(segment.score), 6),
            }
            for segment in result.panoptic.segments
        ],
    }
    return image_entry(result), annotation


def image_entry(result: SegmentationResult) -> dict[str, Any]:
    """The image as COCO lists it."""
    height, width = result.panoptic.ids.shape
    return {"id": image_id(result.image), "file_name": PurePath(result.image).name, "width": width, "height": height}


def categories(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Every class of the vocabulary with its id, name, thing flag and colour."""
    return [
        {
            "id": category.id,
            "name": category.name,
            "supercategory": "",
            "isthing": int(category.is_thing),
            "color": list(category_color(category.id)),
        }
        for category in vocabulary
    ]


def instances_document(result: SegmentationResult) -> dict[str, Any]:
    """COCO instances JSON with compressed run lengths, best first; it loads with pycocotools' `COCO`.

    Instances may overlap, and `score` stands beside COCO's own fields. Masks without a pixel are left out.
    """
    found = result.instances
    if found is None:
        raise ValueError(f"{result.image} was segmented without instances")
    annotations: list[dict[str, Any]] = []
    for mask, category_id, score in zip(found.masks, found.category_id.tolist(), found.score.tolist(), strict=True):
        if not mask.any():
            continue
        x0, y0, x1, y1 = mask_box(mask)
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": image_id(result.image),
                "category_id": category_id,
                "segmentation": {"size": list(mask.shape), "counts": encode_mask(mask).decode("ascii")},
                "area": int(mask.sum()),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "iscrowd": 0,
                "score": round(score, 6),
            }
        )
    return {"images": [image_entry(result)], "annotations": annotations, "categories": categories(result.vocabulary)}


def semantic_png(result: SegmentationResult) -> bytes:
    """Greyscale PNG of classes: value = column of the vocabulary + 1, 0 where no class lies.

    8 bits a pixel for up to 255 classes, 16 beyond. Columns rather than category ids are written, because ids may be
    any number; `semantic_document` lists which is which.
    """
    require(len(result.vocabulary) < 1 << 16, "semantic classes", "< 65536", len(result.vocabulary))
    if result.semantic is None:
        raise ValueError(f"{result.image} was segmented without a semantic map")
    dtype = np.uint8 if len(result.vocabulary) <= 255 else np.uint16
    return encode_png(Image.fromarray((result.semantic + 1).astype(dtype)))


def semantic_document(result: SegmentationResult) -> dict[str, Any]:
    """The meaning of every value of `semantic_png`."""
    return {
        "schema": "retclip.semantic/1",
        "none": 0,
        "classes": [
            {"value": column + 1, "category_id": category.id, "name": category.name, "isthing": int(category.is_thing)}
            for column, category in enumerate(result.vocabulary)
        ],
    }


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes of a picture; the same picture gives the same bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
