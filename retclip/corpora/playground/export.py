"""The playground on disk, in COCO's layout: what trains and is evaluated on COCO does so here with the same commands.

```
annotations/panoptic_<split>2017.json, annotations/panoptic_<split>2017/*.png
annotations/captions_<split>2017.json
<split>2017/*.png
```
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retclip.core.panoptic import ids_to_rgb
from retclip.corpora.playground.classes import CLASSES
from retclip.corpora.playground.scenes import Scene, SceneSettings, compose

LICENSE = "CC0-1.0"
# Splits of one kind share no scene.
SPLITS = {"train": 0, "val": 10_000_000, "test": 20_000_000}


def categories() -> list[dict[str, Any]]:
    """COCO's table of the classes; ids are columns of `CLASSES` plus one."""
    return [
        {"id": column, "name": entry.name, "isthing": int(entry.is_thing), "supercategory": "playground"}
        for column, entry in enumerate(CLASSES, start=1)
    ]


def write_coco(
    root: Path,
    split: str,
    settings: SceneSettings,
    count: int,
    on_scene: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the first `count` scenes of a split; a picture that is there already is not drawn again.

    Args:
        root: created if needed.
        split: one of `SPLITS`.
        settings: kind of scenes.
        count: pictures.
        on_scene: called with the number of pictures done.
    """
    name = f"{split}2017"
    photos, maps = root / name, root / "annotations" / f"panoptic_{name}"
    photos.mkdir(parents=True, exist_ok=True)
    maps.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for index in range(count):
        scene = compose(settings, SPLITS[split] + index)
        file_name = f"{index:06d}.png"
        if not (photos / file_name).is_file():
            _write_png(maps / file_name, ids_to_rgb(scene.ids))
            _write_png(photos / file_name, scene.pixels)
        height, width = scene.ids.shape
        images.append({"id": index, "file_name": file_name, "height": height, "width": width, "license": 1})
        annotations.append({"image_id": index, "file_name": file_name, "segments_info": _segments(scene)})
        captions += [{"id": len(captions) + n, "image_id": index, "caption": c} for n, c in enumerate(scene.captions)]
        on_scene(index + 1)
    licenses = [{"id": 1, "name": LICENSE, "url": ""}]
    _write_json(
        root / "annotations" / f"panoptic_{name}.json",
        {"images": images, "annotations": annotations, "categories": categories(), "licenses": licenses},
    )
    captioned = {"images": images, "annotations": captions, "licenses": licenses}
    _write_json(root / "annotations" / f"captions_{name}.json", captioned)


def _segments(scene: Scene) -> list[dict[str, Any]]:
    """COCO's `segments_info`; boxes are x, y, width, height."""
    entries = []
    for number, column in enumerate(scene.classes, start=1):
        rows, columns = np.nonzero(scene.ids == number)
        x, y = int(columns.min()), int(rows.min())
        box = [x, y, int(columns.max()) - x + 1, int(rows.max()) - y + 1]
        entries.append({"id": number, "category_id": column + 1, "iscrowd": 0, "bbox": box, "area": len(rows)})
    return entries


def _write_png(path: Path, pixels: Any) -> None:
    unfinished = path.with_suffix(".part")
    Image.fromarray(pixels).save(unfinished, "png", compress_level=1)
    unfinished.replace(path)


def _write_json(path: Path, content: Any) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content), encoding="utf-8")
    unfinished.replace(path)
