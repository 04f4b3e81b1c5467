"""What a small CLIP knows of masks it was never shown, and of whole pictures with captions.

Run: python -m scripts.train_tiny.clip_quality --clip FOLDER --scenes D --web W
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import SimpleTokenizer
from torch import Tensor

from retclip.adapters.open_clip import OpenClipEncoder, load_open_clip
from retclip.adapters.open_clip.backbones import text_features
from retclip.core.vocabulary import Vocabulary
from retclip.core.weights import read_weights
from retclip.corpora import open_corpus
from retclip.presets import EncoderSettings
from retclip.segmenters.fcclip.preprocessing import normalised_batch
from retclip.segmenters.fcclip.variants import variant_named
from retclip.training.clip import WEIGHTS_FILE, new_clip
from retclip.training.coco_panoptic import Folders, PanopticPicture, read_annotations, read_pair, targets_of
from retclip.vocabularies import load_vocabulary


def zero_shot(encoder: OpenClipEncoder, pictures: list[PanopticPicture], vocabulary: Vocabulary) -> dict[str, float]:
    """Share of annotated segments whose nearest class name is a right one, by class and by kind."""
    owner = torch.tensor([column for column, category in enumerate(vocabulary) for _ in category.names])
    rows = encoder.encode_names([name for category in vocabulary for name in category.names])
    hits: defaultdict[str, list[bool]] = defaultdict(list)
    for picture in pictures:
        pixels, ids = read_pair(picture)
        targets = targets_of(ids, picture.columns)
        vectors = F.normalize(encoder.embed(encoder.encode_images([pixels])[0], targets.masks), dim=-1)
        right = owner[(vectors @ rows.T).argmax(-1)] == targets.labels
        for column, hit in zip(targets.labels.tolist(), right.tolist(), strict=True):
            kind = "things" if vocabulary[column].is_thing else "stuff"
            for group in ("all", kind, vocabulary[column].names[0]):
                hits[group].append(hit)
    return {group: round(float(np.mean(values)), 3) for group, values in sorted(hits.items())}


@torch.inference_mode()
def retrieval(weights: Path, variant: str, web: Path, count: int) -> dict[str, float]:
    """Recall at 1 among `count` whole pictures and their first captions, both ways."""
    clip = new_clip(variant_named(variant)).eval()
    clip.load_state_dict(read_weights(weights))
    images = [image for image in open_corpus("coco", web, "val2017").images() if image.captions][:count]
    pixels = [torch.tensor(image.read().pixels).permute(2, 0, 1) for image in images]
    seen = F.normalize(clip.visual(normalised_batch(pixels, torch.device("cpu"))), dim=-1)
    read = F.normalize(text_features(clip, SimpleTokenizer()([image.captions[0] for image in images])), dim=-1)
    return {"caption of picture": _first_is_own(seen @ read.T), "picture of caption": _first_is_own(read @ seen.T)}


def _first_is_own(similarity: Tensor) -> float:
    return float((similarity.argmax(1) == torch.arange(len(similarity))).float().mean())


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="folder with configuration and weights")
    parser.add_argument("--variant", default="playground")
    parser.add_argument("--scenes", type=Path, nargs="+", default=[], help="panoptic scenes; their val2017 is used")
    parser.add_argument("--web", type=Path, help="captioned pictures; their val2017 is used")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--short-sides", type=int, nargs="+", default=[224], help="sizes scenes are shown at, pixels")
    parser.add_argument("--by-class", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)

    found: dict[str, object] = {}
    for scenes in given.scenes:
        vocabulary = load_vocabulary(str(scenes / "categories.txt"))
        pictures = read_annotations(Folders.of_coco(scenes, "val"), vocabulary)[: given.pictures]
        for side in given.short_sides:
            settings = EncoderSettings("open_clip", given.variant, weights="", short_side=side, long_side=4 * side)
            encoder = load_open_clip(settings, given.clip, torch.device("cpu"))
            shares = zero_shot(encoder, pictures, vocabulary)
            kinds = {kind: shares[kind] for kind in ("all", "things", "stuff")}
            found[f"{scenes.name} at {side}"] = shares if given.by_class else kinds
    if given.web:
        found["recall at 1"] = retrieval(given.clip / WEIGHTS_FILE, given.variant, given.web, given.pictures)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
