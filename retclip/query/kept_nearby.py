"""What is near the proposals of kept pictures, on disk, and the search that begins there."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from torch import Tensor

from retclip.core.files import prepare_folder, write_bytes
from retclip.core.sealed import Arrays, read_sealed, seal
from retclip.core.segments import Neighbors
from retclip.query.near_rows import KINDS, KnownRows, Rows
from retclip.query.nearby import Nearby, Recollection, observe_nearby
from retclip.query.observations import file_name
from retclip.query.question import Question, find_neighbors

_KNOWN = "known.safetensors"
_SPARE = 32  # more rows than a question asks are kept of every key, at least
_MOST_IN_DOUBT = 0.5  # share of keys; above it the bounds are too wide for what changed, and a search alone is quicker


class NearbyStore:
    """A folder of surroundings, all observed among the same rows. What is missing or damaged is searched for again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, known: KnownRows) -> None:
        """Keep surroundings among these rows; those among others are dropped."""
        found = self.known()
        if found is None or not (np.array_equal(found.name, known.name) and np.array_equal(found.centre, known.centre)):
            shutil.rmtree(self._folder, ignore_errors=True)
            prepare_folder(self._folder)
            write_bytes(self._folder / _KNOWN, seal({"name": known.name, "centre": known.centre}))

    def known(self) -> KnownRows | None:
        """The rows among which surroundings were observed."""
        found = _load(self._folder / _KNOWN, ("name", "centre"))
        return KnownRows(**found) if found else None

    def store(self, image_id: str, nearby: Nearby) -> None:
        """Write one picture."""
        arrays: Arrays = {"row": nearby.row, "product": nearby.product, "beyond": nearby.beyond}
        write_bytes(self._folder / file_name(image_id), seal(arrays))

    def load(self, image_id: str, proposals: int) -> Nearby | None:
        """What is near the proposals of a picture."""
        found = _load(self._folder / file_name(image_id), ("row", "product", "beyond"))
        return Nearby(**found) if found and len(found["beyond"]) == proposals else None


class NearbySearch:
    """Neighbours of kept pictures as a question asks for them, the same as `find_neighbors` gives."""

    def __init__(self, store: NearbyStore, question: Question) -> None:
        self._store, self._question = store, question
        self._helps, self._begun = True, False

    def keep(self, image_id: str, keys: Tensor) -> None:
        """Observe and store what is near the keys (N, D) of a picture."""
        rows, retrieval = self._rows, self._question.preset.retrieval
        if rows is None or not keys.any(dim=1).all():
            return
        if not self._begun:
            self._store.begin(rows.known)
            self._begun = True
        most = min(max(2 * retrieval.k, retrieval.k + _SPARE), len(rows))
        queries = keys.cpu().numpy()
        found = self._question.index.search(queries, most, sorted(self._question.labels.column), None, rows.transform)
        self._store.store(image_id, observe_nearby(queries, found, rows))

    def neighbors(self, image_ids: Sequence[str], keys: Sequence[Tensor]) -> Neighbors:
        """Neighbours of several pictures' keys (N, D), below one another."""
        question, joined = self._question, torch.cat(list(keys))
        nearby = self._loaded(image_ids, keys)
        if nearby is None or self._recollection is None:
            return find_neighbors(question.index, question.labels, joined, question.preset)
        found, doubtful = self._recollection.neighbors(joined.cpu().numpy(), nearby, question.preset.retrieval.k)
        self._helps = doubtful.mean() <= _MOST_IN_DOUBT
        if doubtful.any():
            some = joined[torch.from_numpy(doubtful)]
            _replace(found, doubtful, find_neighbors(question.index, question.labels, some, question.preset))
        return found

    def _loaded(self, image_ids: Sequence[str], keys: Sequence[Tensor]) -> Nearby | None:
        if not self._helps or self._recollection is None:
            return None
        parts = [self._store.load(name, len(key)) for name, key in zip(image_ids, keys, strict=True)]
        present = [part for part in parts if part is not None]
        same = len(present) == len(parts) and len({part.row.shape[1] for part in present}) == 1
        return Nearby.join(present) if same else None

    @cached_property
    def _recollection(self) -> Recollection | None:
        known = self._store.known()
        if known is None or self._rows is None or self._question.preset.retrieval.per_class_k:
            return None
        recollection = Recollection(known, self._rows)
        return recollection if recollection.usable else None

    @cached_property
    def _rows(self) -> Rows | None:
        """The asked rows, None where answers do not follow from products, or a search is not exact."""
        from retclip.shards import Database

        question = self._question
        index, retrieval = question.index, question.preset.retrieval
        if not isinstance(index, Database) or not question.labels.column:
            return None
        transform = index.transform if retrieval.transform == "database" else retrieval.transform
        classes = sorted(question.labels.column)
        if transform not in KINDS or not index.plan(1 << 10, retrieval.k, classes, None, transform).exact:
            return None
        return Rows(index, tuple(classes), transform)


def _replace(found: Neighbors, where: npt.NDArray[np.bool_], by: Neighbors) -> None:
    for name in ("distance", "class_id", "shard", "row", "segment_id"):
        getattr(found, name)[where] = getattr(by, name)


def _load(path: Path, names: Sequence[str]) -> Mapping[str, Any] | None:
    try:
        arrays, _ = read_sealed(path)
    except (OSError, SafetensorError, ValueError):
        return None
    return arrays if set(arrays) == set(names) else None
