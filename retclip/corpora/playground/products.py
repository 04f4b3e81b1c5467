"""Product pictures of the web: one thing before a plain backdrop, with captions and without annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retclip.corpora.playground.export import LICENSE, SPLITS
from retclip.corpora.playground.scenes import Scene, SceneSettings, _Canvas, _look

SIDE = 96


def compose_product(number: int, seed: int = 0) -> Scene:
    """Product picture `number`: 96 x 96 pixels; the backdrop is no segment, its ids are 0."""
    settings = SceneSettings("web", SIDE, SIDE, (1, 1), (0.45 * SIDE, 0.95 * SIDE), seed=seed)
    random = np.random.default_rng([seed, 3, number])
    canvas = _Canvas(settings, _look("web", random), random)
    canvas.drawing[:] = canvas.look.colour(random.random(), random.uniform(0, 0.3), random.uniform(0.2, 1.0))
    while not canvas.classes:
        canvas.add_thing()
    return canvas.finished()


def write_products(root: Path, split: str, count: int, seed: int = 0) -> None:
    """Write the first `count` product pictures of a split, and their captions in COCO's layout."""
    photos, annotations = root / f"{split}2017", root / "annotations"
    photos.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for index in range(count):
        scene = compose_product(SPLITS[split] + index, seed)
        file_name = f"{index:06d}.png"
        Image.fromarray(scene.pixels).save(photos / file_name, compress_level=1)
        images.append({"id": index, "file_name": file_name, "height": SIDE, "width": SIDE, "license": 1})
        captions += [{"id": len(captions) + n, "image_id": index, "caption": c} for n, c in enumerate(scene.captions)]
    content = {"images": images, "annotations": captions, "licenses": [{"id": 1, "name": LICENSE, "url": ""}]}
    (annotations / f"captions_{split}2017.json").write_text(json.dumps(content), encoding="utf-8")
