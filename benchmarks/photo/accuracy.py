"""Retrieval accuracy on real photos: ground-truth masks, retrieval only, exact search, every stored class asked.

    python benchmarks/photo/accuracy.py --root <coco panoptic photos>

For each key transform and number of neighbours k: the share of masks that get their true class by the paper's rule
(min-max, max per class) and by similarity-weighted voting.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from common import Queries, arguments, build_database, ground_truth_queries, prepare, save, temporary_database_folder

from retclip.corpora import open_corpus
from retclip.presets import RetrievalSettings
from retclip.query.matching import match_labels
from retclip.query.retrieval import retrieval_scores
from retclip.shards import TRANSFORMS, Database
from retclip.vocabularies import load_vocabulary

NEIGHBOURS = (1, 4, 8, 16, 32)
RULES = ("minmax", "voting")


def predictions(database: Database, queries: Queries, settings: RetrievalSettings) -> npt.NDArray[np.int64]:
    """(N,) column of @coco133 with the highest retrieval score."""
    vocabulary = load_vocabulary("@coco133")
    labels = match_labels(vocabulary, database.classes)
    transform = None if settings.transform == "database" else settings.transform
    neighbors = database.search(queries.keys, settings.k, sorted(labels.column), transform=transform)
    table = np.full(max(labels.column) + 2, -1, dtype=np.int64)
    for class_id, column in labels.column.items():
        table[class_id] = column
    scores = retrieval_scores(
        torch.from_numpy(neighbors.distance), torch.from_numpy(table[neighbors.class_id]), len(vocabulary), settings
    )
    return scores.argmax(dim=1).numpy()


def accuracies(database: Database, queries: Queries, temperature: float) -> dict[str, dict[str, dict[int, float]]]:
    """Rule -> key transform -> k -> share of masks with the right class."""
    names = load_vocabulary("@coco133").names
    truth = np.array([names.index(label) for label in queries.label])
    base = RetrievalSettings(temperature=temperature)

    def accuracy(rule: str, kind: str, k: int) -> float:
        chosen = predictions(database, queries, replace(base, rule=rule, transform=kind, k=k))
        return float((chosen == truth).mean())

    return {rule: {kind: {k: accuracy(rule, kind, k) for k in NEIGHBOURS} for kind in TRANSFORMS} for rule in RULES}


def main() -> None:
    """Build, ask, print the table."""
    args = arguments(__doc__ or "").parse_args()
    preset, encoder = prepare(args)
    database = build_database(args.root, args.train, preset, encoder, temporary_database_folder())
    queries = ground_truth_queries(open_corpus("coco", args.root, args.val), encoder)
    largest = max(queries.label.count(name) for name in set(queries.label)) / len(queries.label)
    print(
        f"queries: {len(queries.label)} masks of {queries.image.max() + 1} photos, 133 classes asked, "
        f"largest class {largest:.3f} of them"
    )
    temperature = preset.retrieval.temperature
    table = accuracies(database, queries, temperature)
    print("rule     transform    " + "".join(f"k={k:<6}" for k in NEIGHBOURS))
    for rule, rows in table.items():
        for kind, row in rows.items():
            print(f"{rule:8} {kind:12} " + "".join(f"{row[k]:<8.3f}" for k in NEIGHBOURS))
    figures = {"queries": len(queries.label), "segments": len(database), "temperature": temperature, "accuracy": table}
    save(args.json, figures)


if __name__ == "__main__":
    main()
