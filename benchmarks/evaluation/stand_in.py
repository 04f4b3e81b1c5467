"""A stand-in for a text tower: a ridge map from image keys to real CLIP class texts, learned on the train photos.

No CLIP image encoder is among the test data. The map makes the third expert exist on real photos, so that options which
weigh retrieval against text can be measured at all; it is NOT CLIP and its figures say nothing about CLIP.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from retclip.core.vocabulary import Vocabulary
from retclip.evaluation.held_out import HeldOut

RIDGE = 0.03  # of the mean eigenvalue
FOLDS = 5
SCALES = (5.0, 10.0, 20.0, 40.0)


def class_texts(folder: Path, vocabulary: Vocabulary) -> torch.Tensor:
    """(C, 512) unit CLIP ViT-B/16 texts of the classes; COCO-Stuff names, `-merged` and `-other` stripped or added."""
    names = json.loads((folder / "names.json").read_text())
    table = torch.from_numpy(np.load(folder / "text_embedding" / "coco_multi.npy")).float()
    place = {name: row for row, name in enumerate(names)}
    rows = []
    for category in vocabulary:
        raw = [name.removesuffix("-merged") for name in category.names]
        forms = [form for name in raw for form in (name, f"{name}-other", f"{name}-stuff", name.removesuffix("-other"))]
        found = next((place[form] for form in forms if form in place), None)
        if found is None:
            raise SystemExit(f"no text for class {category.name}")
        rows.append(found)
    return torch.nn.functional.normalize(table[rows], dim=1)


class RidgeText:
    """Maps standardised keys to class texts by ridge regression."""

    def __init__(self, texts: torch.Tensor, keys: torch.Tensor, column: np.ndarray) -> None:
        self._texts = texts
        self._mean, self._spread = keys.mean(dim=0), keys.std(dim=0).clamp_min(1e-6)
        x, y = self._standard(keys), texts[torch.from_numpy(column)]
        self._offset = y.mean(dim=0)
        # More dimensions than segments: the dual form inverts the smaller matrix.
        gram = x @ x.T
        gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        self._map = x.T @ torch.linalg.solve(gram, (y - self._offset).double())

    def _standard(self, keys: torch.Tensor) -> torch.Tensor:
        return ((keys - self._mean) / self._spread).double()

    def cosines(self, keys: torch.Tensor) -> torch.Tensor:
        """(N, C) cosine of mapped keys and class texts."""
        mapped = self._standard(keys) @ self._map + self._offset.double()
        return (torch.nn.functional.normalize(mapped, dim=1) @ self._texts.double().T).float()


def cross_fitted(texts: torch.Tensor, held_out: HeldOut) -> tuple[torch.Tensor, float]:
    """What the stand-in says of the database's own segments, each by a map that never saw its picture.

    Returns:
        (N, C) probabilities, and the scale (inverse temperature) that makes them likeliest.
    """
    keys, fold = held_out.observation.keys, held_out.image % FOLDS
    cosine = torch.zeros(len(held_out), len(texts))
    for number in range(FOLDS):
        train = fold != number
        fitted = RidgeText(texts, keys[torch.from_numpy(train)], held_out.column[train])
        cosine[torch.from_numpy(~train)] = fitted.cosines(keys[torch.from_numpy(~train)])
    right = torch.from_numpy(held_out.column)
    likelihood = {
        scale: -float(torch.nn.functional.cross_entropy(scale * cosine, right)) for scale in (*SCALES, 80.0, 100.0)
    }
    best = max(likelihood, key=lambda scale: likelihood[scale])
    return (best * cosine).softmax(dim=1), best
