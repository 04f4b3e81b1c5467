"""Why a segment carries its label: the experts' shares, the runners-up and the stored segments that voted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from retclip.core.panoptic import Segment
from retclip.core.results import Expert, Explanation, Neighbor
from retclip.core.segments import Neighbors, StoredSegment
from retclip.core.vocabulary import Vocabulary
from retclip.ports.neighbors import NeighborIndex
from retclip.query.ensemble import ExpertScores, FusedScores
from retclip.query.matching import LabelMap

EXPERTS: tuple[Expert, ...] = ("retrieval", "clip", "in-vocab")
# A winner that is less than a tenth ahead of the next class is worth a second look.
_LOW_MARGIN = 0.1
_RUNNERS_UP = 3
_SHOWN_NEIGHBORS = 5


@dataclass(frozen=True)
class Evidence:
    """Everything that was computed for the proposals of one image; rows are proposals."""

    experts: ExpertScores
    fused: FusedScores
    neighbors: Neighbors
    labels: LabelMap
    vocabulary: Vocabulary
    index: NeighborIndex


class RememberedRecords:
    """Records of stored segments, read once for all pictures: their neighbours are much the same.

    Args:
        index: a database version, or several.
        most: records that stay in memory.
    """

    def __init__(self, index: NeighborIndex, most: int = 1 << 16) -> None:
        self._index, self._most = index, most
        self._known: dict[tuple[int, int], StoredSegment] = {}

    def read(self, positions: Sequence[tuple[int, int]]) -> list[StoredSegment]:
        """See `NeighborIndex.segments`."""
        wanted = list(dict.fromkeys(positions))
        if len(self._known) + len(wanted) > self._most:
            self._known.clear()
        missing = [position for position in wanted if position not in self._known]
        if missing:
            self._known.update(zip(missing, self._index.segments(missing), strict=True))
        return [self._known[position] for position in positions]


def explain(
    evidence: Evidence,
    segments: Sequence[Segment],
    proposals: Sequence[int],
    records: RememberedRecords | None = None,
) -> tuple[Explanation, ...]:
    """One explanation per segment of the map; `proposals` names the row each came from."""
    stored = _stored_neighbors(evidence, proposals, records or RememberedRecords(evidence.index))
    columns = {category.id: column for column, category in enumerate(evidence.vocabulary)}
    return tuple(
        _explain_one(evidence, segment, row, columns[segment.category_id], stored[row])
        for segment, row in zip(segments, proposals, strict=True)
    )


def _explain_one(
    evidence: Evidence, segment: Segment, row: int, column: int, neighbors: tuple[Neighbor, ...]
) -> Explanation:
    scores = evidence.fused.scores[row]
    shares: Mapping[Expert, float] = dict(zip(EXPERTS, evidence.fused.shares[row, column].tolist(), strict=True))
    best = scores.topk(min(_RUNNERS_UP + 1, len(scores)))
    runners = [
        (evidence.vocabulary[c].name, s)
        for s, c in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if c != column and s > 0
    ][:_RUNNERS_UP]
    match = evidence.labels.matches[column]
    flags = []
    if match.method == "none":
        flags.append("no_exemplars")
    if runners and segment.score - runners[0][1] < _LOW_MARGIN * segment.score:
        flags.append("low_margin")
    if not neighbors:
        flags.append("no_neighbors")
    tables = (evidence.experts.retrieval, evidence.experts.clip, evidence.experts.in_vocab)
    return Explanation(
        segment=segment,
        label=evidence.vocabulary[column].name,
        proposal=row,
        scores={name: _value(table, row, column) for name, table in zip(EXPERTS, tables, strict=True)},
        decided_by=max(EXPERTS, key=lambda name: shares[name]),
        shares=shares,
        runner_up=tuple(runners),
        match=match,
        neighbors=neighbors,
        flags=tuple(sorted(flags)),
    )


def _value(table: Tensor | None, row: int, column: int) -> float | None:
    return None if table is None else float(table[row, column])


def _stored_neighbors(
    evidence: Evidence, proposals: Sequence[int], records: RememberedRecords
) -> dict[int, tuple[Neighbor, ...]]:
    """The nearest stored segments of some proposals, read from the database in one batch."""
    places = []
    for row in sorted(set(proposals)):
        for hit in range(min(_SHOWN_NEIGHBORS, evidence.neighbors.distance.shape[1])):
            if evidence.neighbors.class_id[row, hit] >= 0:
                places.append((row, hit))
    found = records.read(
        [(int(evidence.neighbors.shard[place]), int(evidence.neighbors.row[place])) for place in places]
    )
    result: dict[int, list[Neighbor]] = {row: [] for row in proposals}
    for (row, hit), segment in zip(places, found, strict=True):
        origin = evidence.index.origin(int(evidence.neighbors.shard[row, hit]))
        result[row].append(Neighbor(float(evidence.neighbors.distance[row, hit]), segment.label, segment, origin))
    return {row: tuple(neighbors) for row, neighbors in result.items()}
