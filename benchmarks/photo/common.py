"""What the photo benchmarks share: arguments, the database of the train photos, and the keys of the query photos."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from retclip.assembly import make_encoder
from retclip.core.images import read_picture
from retclip.corpora import open_corpus
from retclip.indexer.build import build
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.ports.corpora import Corpus
from retclip.ports.encoders import DenseEncoder, embed_regions
from retclip.presets import Preset, load_preset, preset_to_mapping
from retclip.shards import Database

HERE = Path(__file__).parent


def arguments(description: str) -> argparse.ArgumentParser:
    """Arguments that every photo benchmark takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="photos in COCO panoptic layout")
    parser.add_argument("--train", default="train", help="split that fills the database")
    parser.add_argument("--val", default="val", help="split that asks")
    parser.add_argument("--preset", default=str(HERE / "preset.toml"))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser


@dataclass(frozen=True)
class Queries:
    """keys (N, D) unit vectors of the ground-truth masks, label (N,) class names, image (N,) index of the photo."""

    keys: npt.NDArray[np.float32]
    label: list[str]
    image: npt.NDArray[np.int64]


def build_database(root: Path, split: str, preset: Preset, encoder: DenseEncoder, folder: Path) -> Database:
    """A database of the annotated masks of one split; crowd regions are kept, as the corpus reader does."""
    database = Database.create(folder, encoder.space, preset_to_mapping(preset), preset.index.key_transform)
    started = time.perf_counter()
    corpus = open_corpus("coco", root, split)
    request = BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), batch=preset.index.batch)
    report = build(database, request, encoder, "build")
    print(
        f"database: {report.added} segments, {len(report.classes)} classes, {report.images} photos "
        f"in {time.perf_counter() - started:.1f} s, content hash {report.content_hash[:16]}"
    )
    return Database.open(folder)


def ground_truth_queries(corpus: Corpus, encoder: DenseEncoder) -> Queries:
    """One key per annotated mask of every photo."""
    names = {item.raw: item.name for item in corpus.classes}
    keys, labels, images = [], [], []
    for index, image in enumerate(corpus.images()):
        picture = read_picture(image.path)
        regions = corpus.regions(image, picture.size, "masks")
        features = encoder.encode_images([picture.pixels])[0]
        masks = torch.from_numpy(np.stack([region.mask for region in regions]))
        keys.append(embed_regions(encoder, features, masks).cpu().numpy())
        labels += [names[region.label] for region in regions]
        images += [index] * len(regions)
    return Queries(np.concatenate(keys), labels, np.array(images))


def prepare(args: argparse.Namespace) -> tuple[Preset, DenseEncoder]:
    """The preset and its encoder on the CPU."""
    preset = load_preset(args.preset)
    return preset, make_encoder(preset, "auto")


def temporary_database_folder() -> Path:
    """A new folder for a database, removed with the machine's temporary files."""
    return Path(tempfile.mkdtemp(prefix="retclip-photo-")) / "photo.retdb"


def save(path: Path | None, figures: dict[str, Any]) -> None:
    """Write the figures when --json asks for them."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")
