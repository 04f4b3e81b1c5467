"""Annotated segments to tune on: those of the database itself, each asked as if its own picture were not stored."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from retclip.core.errors import InputError, require
from retclip.evaluation.truth import EvaluationSet
from retclip.presets import RetrievalSettings
from retclip.query.matching import LabelMap
from retclip.query.observations import ObservationStore
from retclip.query.question import hits_of
from retclip.query.scoring import Hits, Observation, leave_out
from retclip.shards import Database


@dataclass(frozen=True)
class HeldOut:
    """N annotated segments, those of one picture side by side.

    Attributes:
        observation: what the networks say of them; row = segment.
        column: (N,) true column of the vocabulary.
        image: (N,) number of the picture, ascending.
        area: (N,) pixels.
        digests: sha256 of every picture's file, by number.
    """

    observation: Observation
    column: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    area: npt.NDArray[np.int64]
    digests: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.observation.keys), len(self.column), len(self.image), len(self.area)}
        require(len(lengths) == 1, "HeldOut", "equal lengths", lengths)
        require(bool((np.diff(self.image) >= 0).all()), "HeldOut.image", "ascending numbers", "something else")

    def __len__(self) -> int:
        return len(self.column)

    def rows(self, chosen: npt.NDArray[np.bool_]) -> HeldOut:
        """The segments marked in `chosen` (N,) bool."""
        tensor = torch.from_numpy(chosen)
        observation = self.observation.select(tensor)
        return HeldOut(observation, self.column[chosen], self.image[chosen], self.area[chosen], self.digests)

    def image_chunks(self, most_rows: int) -> list[npt.NDArray[np.bool_]]:
        """Row masks of groups of whole pictures with about `most_rows` segments each."""
        starts = np.searchsorted(self.image, np.arange(len(self.digests)))
        group = starts[self.image] // max(1, most_rows)
        return [group == number for number in np.unique(group)]


def from_database(database: Database, labels: LabelMap, most_images: int) -> HeldOut:
    """Stored segments of at most `most_images` pictures (in the order of their digests), crowds left out.

    Raises:
        InputError: E167 when fewer than two pictures hold a segment of a matched class.
    """
    by_image: defaultdict[str, list[tuple[int, int, int, int]]] = defaultdict(list)
    class_of = {item.name: item.id for item in database.classes}
    for shard, row, segment in database.iter_segments(sorted(labels.column)):
        if not segment.is_crowd:
            column = labels.column[class_of[segment.label]]
            by_image[segment.image_sha256].append((shard, row, column, segment.area))
    digests = sorted(by_image)[:most_images]
    if len(digests) < 2:
        why = f"{len(digests)} picture(s) of '{database.name}' hold a segment of the asked classes."
        raise InputError("E167", "There is nothing to tune on.", why=why, fix="Add pictures, or ask for other classes.")
    entries = [(number, *entry) for number, digest in enumerate(digests) for entry in by_image[digest]]
    table = np.array(entries, np.int64)
    keys = database.vectors([(shard, row) for _, shard, row, _, _ in entries])
    unit = torch.nn.functional.normalize(torch.from_numpy(keys), dim=1)
    return HeldOut(Observation(unit), table[:, 3], table[:, 0], table[:, 4], tuple(digests))


def from_observations(dataset: EvaluationSet, store: ObservationStore) -> HeldOut:
    """Observed annotated masks (`retclip eval --proposals given`), with the scores of every expert that looked.

    Raises:
        InputError: E167 when the proposals are not the annotated masks, E165 for a damaged observation.
    """
    columns = {category.id: number for number, category in enumerate(dataset.vocabulary)}
    parts: list[Observation] = []
    column, image, area, digests = [], [], [], []
    for number, entry in enumerate(dataset.images):
        observed = store.load(entry.image_id)
        true = [columns[segment.category_id] for segment in entry.segments if not segment.is_crowd]
        if observed.masks.origin != "given" or len(observed.masks) != len(true):
            why = f"{entry.image_id} was observed with '{observed.masks.origin}' proposals."
            raise InputError(
                "E167", "These observations cannot be tuned on.", why=why, fix="retclip eval --proposals given"
            )
        parts.append(observed.observation)
        column += true
        image += [number] * len(true)
        area += observed.masks.masks.sum(dim=(1, 2)).tolist()
        digests.append(observed.sha256)
    table = np.array([column, image, area], np.int64)
    return HeldOut(_joined(parts), table[0], table[1], table[2], tuple(digests))


def _joined(parts: list[Observation]) -> Observation:
    first = parts[0]
    tables = {
        name: None if getattr(first, name) is None else torch.cat([getattr(part, name) for part in parts])
        for name in ("clip", "in_vocab", "void", "valid")
    }
    return Observation(torch.cat([part.keys for part in parts]), **tables)


class OwnPicture:
    """Knows which stored rows belong to which picture, so that a segment is never its own witness.

    Args:
        banned_ids: segments that answer nobody (exemplar cleaning).
    """

    def __init__(self, database: Database, digests: tuple[str, ...], banned_ids: frozenset[int] = frozenset()) -> None:
        self._database = database
        number = {digest: place for place, digest in enumerate(digests)}
        self._image = [np.full(part.reader.rows, -1, np.int64) for part in database.snapshot.shards]
        for shard, row, segment in database.iter_segments():
            self._image[shard][row] = number.get(segment.image_sha256, -1)
        self._banned = np.array(sorted(banned_ids), np.uint64)
        counts = [np.bincount(images[images >= 0]) for images in self._image if (images >= 0).any()]
        self._most = max((int(count.max()) for count in counts), default=0) * len(counts)

    def hits(self, held_out: HeldOut, labels: LabelMap, retrieval: RetrievalSettings) -> Hits:
        """Neighbours of every segment in other pictures: exactly what a database without its picture would answer."""
        spare = self._most + len(self._banned)
        per_class = retrieval.per_class_k + spare if retrieval.per_class_k else None
        # The k that stay come from at most k classes, and each may bring its spare rows along.
        k = retrieval.k * per_class if per_class else retrieval.k + spare
        transform = None if retrieval.transform == "database" else retrieval.transform
        keys = held_out.observation.keys.numpy()
        found = self._database.search(keys, min(k, len(self._database)), sorted(labels.column), per_class, transform)
        owner = np.full(found.class_id.shape, -2, np.int64)
        for shard, images in enumerate(self._image):
            here = found.shard == shard
            owner[here] = images[found.row[here]]
        banned = (owner == held_out.image[:, None]) | np.isin(found.segment_id, self._banned)
        hits = leave_out(hits_of(found, labels, torch.device("cpu")), torch.from_numpy(banned))
        return (limit_per_class(hits, retrieval.per_class_k) if retrieval.per_class_k else hits).nearest(retrieval.k)


def limit_per_class(hits: Hits, most: int) -> Hits:
    """The hits with at most `most` of every column, nearest first."""
    grouped, order = hits.column.sort(dim=1, stable=True)
    place = torch.arange(grouped.shape[1]).expand_as(grouped)
    starts = torch.ones_like(grouped, dtype=torch.bool)
    starts[:, 1:] = grouped[:, 1:] != grouped[:, :-1]
    rank = place - torch.where(starts, place, 0).cummax(dim=1).values
    return leave_out(hits, torch.zeros_like(rank).scatter_(1, order, rank) >= most)


def without_columns(labels: LabelMap, hidden: npt.NDArray[np.bool_]) -> LabelMap:
    """The label map of a database that never saw the hidden classes, (C,) bool."""
    return replace(labels, column={key: column for key, column in labels.column.items() if not hidden[column]})
