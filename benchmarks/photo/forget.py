"""Forgetting and teaching a class: delete it, ask again, teach it back from a folder of photos, ask again.

    python benchmarks/photo/forget.py --root <coco panoptic photos> --class bear

Every change goes through the command line; ground-truth masks are asked, so that only labels can differ. The photos
taught are crops of the train photos, with the annotated mask beside each.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from common import arguments, ground_truth_queries, prepare, save
from PIL import Image

from retclip.cli.main import main as retclip
from retclip.core.images import read_picture
from retclip.corpora import open_corpus
from retclip.query.given_masks import GivenMasks
from retclip.query.pipeline import Models, RetrievalSegmenter
from retclip.shards import open_database
from retclip.vocabularies import load_vocabulary


def run(*words: str) -> None:
    """One command; it must succeed."""
    print("$ retclip " + " ".join(words))
    if retclip([*words, "--quiet"]) != 0:
        raise SystemExit(f"failed: {words}")


def crops(root: Path, split: str, name: str, folder: Path, margin: int = 16) -> int:
    """Write the regions of a class as photos with a mask beside each; returns how many."""
    corpus = open_corpus("coco", root, split)
    raw = {item.raw for item in corpus.classes if item.name == name}
    count = 0
    folder.mkdir()
    for image in corpus.images():
        if not raw & {label.name for label in image.labels}:
            continue
        picture = read_picture(image.path)
        for region in corpus.regions(image, picture.size, "masks"):
            if region.label in raw:
                x0, y0, x1, y1 = (int(v) for v in region.box)
                part = np.s_[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
                Image.fromarray(picture.pixels[part]).save(folder / f"{count:03d}.png")
                Image.fromarray(region.mask[part].astype(np.uint8) * 255).save(folder / f"{count:03d}.mask.png")
                count += 1
    return count


def main() -> None:
    """Build, ask, forget, ask, teach, ask."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--class", dest="name", default="bear")
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="retclip-forget-"))
    os.environ["RETCLIP_HOME"] = str(work)
    preset, encoder = prepare(args)
    queries = ground_truth_queries(open_corpus("coco", args.root, args.val), encoder)
    vocabulary = load_vocabulary("@coco133")

    def ask(reference: str) -> tuple[int, int]:
        database = open_database(reference)
        segmenter = RetrievalSegmenter(Models(encoder, GivenMasks(args.root)), database, vocabulary, preset)
        predicted = Counter[str]()
        correct = 0
        for image in np.unique(queries.image):
            rows = np.flatnonzero(queries.image == image)
            evidence = segmenter.score(torch.from_numpy(queries.keys[rows]))
            for row, column in zip(rows, evidence.fused.scores.argmax(dim=1).tolist(), strict=True):
                predicted[vocabulary[column].name] += 1
                correct += vocabulary[column].name == queries.label[row] == args.name
        print(
            f"{database.name}@{database.version}: '{args.name}' predicted {predicted[args.name]} times, "
            f"{correct} of {queries.label.count(args.name)} true ones found"
        )
        return predicted[args.name], correct

    run(
        "index",
        "build",
        "--source",
        "coco",
        "--root",
        str(args.root),
        "--split",
        args.train,
        "--use-masks",
        "--db",
        "photo",
        "--preset",
        args.preset,
    )
    before = ask("photo")
    run("db", "delete", "photo", "--label", args.name, "--yes")
    without = ask("photo")
    photos = work / "photos"
    print(f"{crops(args.root, args.train, args.name, photos)} photos of '{args.name}' to learn from")
    run("index", "add-classes", "--db", "photo", "--classes", args.name, "--images", str(photos), "--use-masks")
    after = ask("photo")
    assert ask("photo@2") == before, "the old version must answer as it did"
    assert ask("photo@3") == without, "the version without the class must answer as it did"
    save(args.json, {"class": args.name, "before": before, "without": without, "after": after})


if __name__ == "__main__":
    main()
