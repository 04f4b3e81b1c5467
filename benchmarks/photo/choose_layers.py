"""How the layers of preset.toml were chosen: 1-NN and voting on the TRAIN photos alone, each photo left out in turn.

    python benchmarks/photo/choose_layers.py --root <coco panoptic photos>

The query photos play no part, so the figures of accuracy.py are not fitted to them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from common import Queries, arguments, ground_truth_queries, save

from retclip.assembly import make_encoder
from retclip.corpora import open_corpus
from retclip.presets import load_preset

CANDIDATES = (
    ("bn2",),
    ("blocks.4",),
    ("blocks.4", "bn2"),
    ("blocks.4", "blocks.5", "bn2"),
    ("blocks.4", "blocks.6", "bn2"),
    ("blocks.3", "blocks.4", "blocks.5", "bn2"),
    ("blocks.4", "blocks.5", "blocks.6", "bn2"),
)
NEIGHBOURS = (1, 8, 32)


def left_out_accuracy(queries: Queries, k: int, temperature: float) -> float:
    """Share of masks whose class wins the vote of their k nearest masks in other photos; keys are centred."""
    keys = queries.keys - queries.keys.mean(axis=0)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    likeness: npt.NDArray[np.float32] = keys @ keys.T
    likeness[queries.image[:, None] == queries.image[None]] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    names, label = np.unique(queries.label, return_inverse=True)
    rows = np.arange(len(keys))[:, None]
    votes = np.zeros((len(keys), len(names)))
    np.add.at(votes, (rows, label[nearest]), np.exp((likeness[rows, nearest] - 1) / temperature))
    return float((votes.argmax(axis=1) == label).mean())


def main() -> None:
    """One line per candidate."""
    args = arguments(__doc__ or "").parse_args()
    preset = load_preset(args.preset)
    print(f"{'layers':38}" + "".join(f"k={k:<6}" for k in NEIGHBOURS))
    figures = {}
    for layers in CANDIDATES:
        encoder = make_encoder(replace(preset, encoder=replace(preset.encoder, layers=layers)), "auto")
        queries = ground_truth_queries(open_corpus("coco", args.root, args.train), encoder)
        row = [left_out_accuracy(queries, k, preset.retrieval.temperature) for k in NEIGHBOURS]
        figures[" ".join(layers)] = row
        print(f"{' '.join(layers):38}" + "".join(f"{value:<8.3f}" for value in row), flush=True)
    save(args.json, figures)


if __name__ == "__main__":
    main()
