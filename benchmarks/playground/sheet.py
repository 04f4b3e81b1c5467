"""The picture of docs/playground.md: scenes of both domains and of the web, each beside its truth.

python -m benchmarks.playground.sheet --out docs/images/playground.jpg
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.playground.world import VOCABULARY
from retclip.corpora.playground import Scene, SceneSettings, compose
from retclip.corpora.playground.products import compose_product
from retclip.corpora.playground.scenes import Domain
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.evaluation.pictures import side_by_side

SEED, WIDTH, GAP = 1, 1320, 6


def drawn() -> list[list[Scene]]:
    """Two scenes of every domain, and below them a captioned scene and a product picture."""
    domains: tuple[Domain, ...] = ("a", "b")
    rows = [[compose(SceneSettings.of(domain, seed=SEED), number) for number in (0, 1)] for domain in domains]
    return [*rows, [compose(SceneSettings.of("web", seed=SEED), 0), compose_product(0, SEED)]]


def beside_truth(scene: Scene) -> npt.NDArray[np.uint8]:
    """A scene and its segments in class colours, left to right: (H, W, 3)."""
    segments = tuple(MapSegment(place, VOCABULARY[column].id) for place, column in enumerate(scene.classes, start=1))
    jpeg = side_by_side(scene.pixels, ((scene.ids, segments),), VOCABULARY)
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def sheet() -> Image.Image:
    """Rows of scenes as wide as the page."""
    rows = []
    for scenes in drawn():
        parts = [beside_truth(scene) for scene in scenes]
        gap = np.full((len(parts[0]), GAP, 3), 255, np.uint8)
        row = Image.fromarray(np.concatenate([part for pair in parts for part in (pair, gap)][:-1], axis=1))
        rows.append(row.resize((WIDTH, round(row.height * WIDTH / row.width))))
    page = Image.new("RGB", (WIDTH, sum(row.height + GAP for row in rows) - GAP), "white")
    top = 0
    for row in rows:
        page.paste(row, (0, top))
        top += row.height + GAP
    return page


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JPEG file")
    sheet().save(parser.parse_args().out, "JPEG", quality=82)


if __name__ == "__main__":
    main()
