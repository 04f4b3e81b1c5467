"""How long a sweep takes: 1,000 settings (k, alpha, beta, gamma) over the scores of 2,000 pictures.

    OMP_NUM_THREADS=2 python benchmarks/evaluation/sweep.py --json sweep.json

The scores are random numbers of ADE20K's size (150 classes, 12 segments a picture, all three experts and void): only
the time means something. What is timed is what `retclip tune` does after its searches, both halves of hidden classes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from retclip.core.vocabulary import Category, Vocabulary
from retclip.evaluation.held_out import HeldOut
from retclip.evaluation.tuning import Candidate, Ground, sweep
from retclip.presets import FusionSettings, Preset, RetrievalSettings
from retclip.query.matching import LabelMap
from retclip.query.scoring import Hits, Observation

CLASSES, SEGMENTS, THINGS, SEEN = 150, 12, 100, 64
GRID = {"k": (8, 16, 24, 32), "alpha": (0.2, 0.3, 0.4, 0.5, 0.6), "beta": (0.5, 0.6, 0.7, 0.8, 0.9),
        "gamma": (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}  # fmt: skip


class RandomHits:
    """Neighbours without a database."""

    def hits(self, held_out: HeldOut, labels: LabelMap, retrieval: RetrievalSettings) -> Hits:
        """Random distances and classes among those that are not hidden."""
        rng = np.random.default_rng(0)
        distance = np.sort(rng.random((len(held_out), retrieval.k), np.float32), axis=1)
        column = rng.choice(sorted(labels.column.values()), distance.shape)
        return Hits(torch.from_numpy(distance), torch.from_numpy(column))


def make_ground(pictures: int) -> Ground:
    """Random scores of every expert."""
    rng = np.random.default_rng(1)
    count = pictures * SEGMENTS
    table = torch.rand(2, count, CLASSES, generator=torch.Generator().manual_seed(2)).softmax(dim=2)
    observation = Observation(torch.zeros(count, 1), table[0], table[1], torch.rand(count))
    image = np.repeat(np.arange(pictures), SEGMENTS)
    held_out = HeldOut(
        observation,
        rng.integers(0, CLASSES, count),
        image,
        rng.integers(100, 50_000, count),
        tuple(map(str, range(pictures))),
    )
    vocabulary = Vocabulary("random", tuple(Category(n, (f"c{n}",)) for n in range(CLASSES)))
    labels = LabelMap({n: n for n in range(len(vocabulary))}, (), ())
    return Ground(held_out, RandomHits(), labels, np.arange(CLASSES) < THINGS, np.arange(CLASSES) < SEEN)


def main() -> None:
    """Time one sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    candidates = [
        Candidate(
            Preset("p", retrieval=RetrievalSettings(k=k), fusion=FusionSettings(alpha=alpha, beta=beta, gamma=gamma))
        )
        for k, alpha, beta, gamma in itertools.product(*GRID.values())
    ]
    ground = make_ground(options.pictures)
    start = time.perf_counter()
    outcomes = sweep(ground, candidates, lambda done, total: None)
    seconds = time.perf_counter() - start
    facts = {
        "settings": len(outcomes),
        "pictures": options.pictures,
        "segments": len(ground.held_out),
        "classes": CLASSES,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "seconds": seconds,
    }
    print(facts)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
