"""How well the examples of a database agree with one another.

Every asked segment looks for its nearest segments in other pictures, as a query would. A segment whose neighbours carry
another label is mislabelled or unusual; two classes whose segments find each other are confused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from retclip.core.errors import EmptyDatabase
from retclip.shards.database import Database
from retclip.shards.search import Plan
from retclip.shards.self_search import NEIGHBOURS, Answers, ask_itself

FEW_EXEMPLARS = 10
FEWEST_RIVALS = 3  # with fewer segments of its class in other pictures, a majority of others says nothing
DUPLICATE_DISTANCE = 1e-3  # the same region in a resized or recompressed picture; in units of the key transform
_SHOWN_CONFUSIONS = 3
_QUERIES, _NEAREST = 100, 32  # a picture's regions, and the neighbours that presets ask for


@dataclass(frozen=True)
class ClassHealth:
    """Examples of one class.

    Attributes:
        segments, images: how many, and from how many pictures.
        spread: median distance of an asked segment to the nearest of its class in another picture, NaN without any.
        agreement: mean share of a judged segment's neighbours that carry the same label, NaN where none was judged.
        confused_with: mean share of the neighbours that carry another label, largest first.
    """

    name: str
    segments: int
    images: int
    spread: float
    agreement: float
    confused_with: Mapping[str, float]


@dataclass(frozen=True)
class Disagreement:
    """A segment most of whose neighbours carry one other label.

    Attributes:
        share: of the neighbours that carry `other`, in (0.5, 1].
        neighbours: segment id, label and distance of the nearest, nearest first.
    """

    segment_id: int
    label: str
    other: str
    share: float
    neighbours: tuple[tuple[int, str, float], ...]


@dataclass(frozen=True)
class Duplicate:
    """Two segments of different pictures that are nearly the same, with their labels."""

    segment_id: int
    label: str
    other_id: int
    other_label: str
    distance: float


@dataclass(frozen=True)
class Health:
    """What `examine` found.

    Attributes:
        database: name@version; `transform`: its key transform, in which distances are measured.
        segments, asked, judged: live segments, how many were asked, and how many of those could be judged.
        classes: one per class, in the order of the database.
        disagreeing: most certain first.
        duplicates: nearest first.
        pictures: address (or image id) by segment id, of every segment that the two name.
        nearest: (n,) float32 distances of the asked segments to their nearest in another picture, where there is one.
        plan: how a question about all classes is answered; its recall is measured where the answer is not exact.
    """

    database: str
    transform: str
    segments: int
    asked: int
    judged: int
    classes: tuple[ClassHealth, ...]
    disagreeing: tuple[Disagreement, ...]
    duplicates: tuple[Duplicate, ...]
    pictures: Mapping[int, str]
    nearest: npt.NDArray[np.float32]
    plan: Plan

    @property
    def recall(self) -> float:
        """Share of the true answer that a question finds."""
        return 1.0 if self.plan.recall is None else self.plan.recall

    @property
    def thin(self) -> tuple[ClassHealth, ...]:
        """Classes with few exemplars, thinnest first."""
        few = [item for item in self.classes if item.segments < FEW_EXEMPLARS]
        return tuple(sorted(few, key=lambda item: (item.segments, item.name)))


def examine(database: Database, per_class: int = 200) -> Health:
    """Ask a database about at most `per_class` of its own segments per class.

    Raises:
        EmptyDatabase: E302, it holds no segments.
    """
    if not database.classes:
        raise EmptyDatabase(database.name, database.version)
    answers = ask_itself(database, per_class)
    names = {item.id: item.name for item in database.classes}
    shares = neighbour_shares(answers, [item.id for item in database.classes])
    nearest = answers.distance[:, 0]
    disagreeing, duplicates = _disagreements(answers, shares, names), _duplicates(answers, names)
    named = {item.segment_id for item in disagreeing} | {found[0] for item in disagreeing for found in item.neighbours}
    named |= {number for pair in duplicates for number in (pair.segment_id, pair.other_id)}
    return Health(
        database=f"{database.name}@{database.version}",
        transform=database.transform,
        segments=len(database),
        asked=len(answers.class_id),
        judged=int(np.count_nonzero(is_judged(answers))),
        classes=tuple(_class_healths(database, answers, shares)),
        disagreeing=tuple(disagreeing),
        duplicates=tuple(duplicates),
        pictures=_pictures(database, named),
        nearest=nearest[np.isfinite(nearest)],
        plan=_plan(database),
    )


def _plan(database: Database) -> Plan:
    """How the database answers, and where that is not exact how much of the answer it finds."""
    places = [place[:2] for place in islice(database.iter_segments(), _QUERIES)]
    if not database.plan(len(places), _NEAREST).exact:
        database.measure_recall(database.vectors(places), _NEAREST)
    return database.plan(len(places), _NEAREST)


def _pictures(database: Database, segment_ids: Iterable[int]) -> dict[int, str]:
    shards, rows = database.snapshot.locate(np.fromiter(segment_ids, np.uint64))
    found = database.segments(list(zip(shards.tolist(), rows.tolist(), strict=True)))
    return {segment.segment_id: segment.image_uri or segment.image_id for segment in found}


def is_judged(answers: Answers) -> npt.NDArray[np.bool_]:
    """(n,) whether the class of a segment has enough others in other pictures to win a majority."""
    return answers.rivals >= FEWEST_RIVALS


def neighbour_shares(answers: Answers, classes: list[int]) -> npt.NDArray[np.float64]:
    """(n, C) share of each class among the neighbours of a segment; rows sum to 1.

    No more neighbours are counted than the segment has rivals: a class of four segments can be unanimous too.
    """
    counted = np.minimum(answers.rivals, NEIGHBOURS)
    place = np.arange(NEIGHBOURS) < np.maximum(counted, 1)[:, None]
    votes = (answers.class_found[:, :, None] == np.array(classes)) & place[:, :, None]
    totals = votes.sum(axis=(1, 2))
    shares: npt.NDArray[np.float64] = votes.sum(axis=1) / np.maximum(totals, 1)[:, None]
    return shares


def _class_healths(database: Database, answers: Answers, shares: npt.NDArray[np.float64]) -> list[ClassHealth]:
    judged = is_judged(answers)
    result = []
    for place, item in enumerate(database.classes):
        mine = answers.class_id == item.id
        mean = shares[mine & judged].mean(axis=0) if (mine & judged).any() else None
        own = answers.own[mine & np.isfinite(answers.own)]
        confused = {}
        if mean is not None:
            order = [n for n in np.argsort(-mean, kind="stable").tolist() if n != place and mean[n] > 0]
            confused = {database.classes[n].name: float(mean[n]) for n in order[:_SHOWN_CONFUSIONS]}
        result.append(
            ClassHealth(
                name=item.name,
                segments=item.count,
                images=answers.images[item.id],
                spread=float(np.median(own)) if len(own) else float("nan"),
                agreement=float("nan") if mean is None else float(mean[place]),
                confused_with=confused,
            )
        )
    return result


def _disagreements(answers: Answers, shares: npt.NDArray[np.float64], names: Mapping[int, str]) -> list[Disagreement]:
    ids = list(names)
    best = shares.argmax(axis=1)
    other = np.array(ids)[best] != answers.class_id
    certain = shares.max(axis=1)
    rows = np.flatnonzero(is_judged(answers) & other & (certain > 0.5))
    rows = rows[np.lexsort((answers.segment_id[rows], -certain[rows]))]
    return [
        Disagreement(
            segment_id=int(answers.segment_id[row]),
            label=names[int(answers.class_id[row])],
            other=names[ids[int(best[row])]],
            share=float(certain[row]),
            neighbours=tuple(
                (int(found), names[int(class_id)], float(distance))
                for found, class_id, distance in zip(
                    answers.id_found[row], answers.class_found[row], answers.distance[row], strict=True
                )
                if class_id >= 0
            ),
        )
        for row in rows.tolist()
    ]


def _duplicates(answers: Answers, names: Mapping[int, str]) -> list[Duplicate]:
    """Every near pair once, named by its smaller id."""
    pairs: dict[tuple[int, int], Duplicate] = {}
    for row, place in np.argwhere(answers.distance <= DUPLICATE_DISTANCE).tolist():
        one = (int(answers.segment_id[row]), names[int(answers.class_id[row])])
        two = (int(answers.id_found[row, place]), names[int(answers.class_found[row, place])])
        low, high = sorted((one, two))
        pairs[low[0], high[0]] = Duplicate(*low, *high, float(answers.distance[row, place]))
    return sorted(pairs.values(), key=lambda pair: (pair.distance, pair.segment_id, pair.other_id))
