"""The walk of a build: plan -> units -> ledger -> one commit. Interrupted anywhere, it goes on where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip import __version__
from retclip.core.errors import FeatureSpaceMismatch
from retclip.core.prefetch import prefetched
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import normalise_name
from retclip.indexer.plan import BuildRequest, WorkUnit, work_units
from retclip.indexer.report import RunReport
from retclip.indexer.units import Failure, LoadedUnit, UnitResult, load_unit, run_unit
from retclip.ports.encoders import DenseEncoder
from retclip.shards import Database, Ledger
from retclip.shards.compaction import told
from retclip.shards.transaction import Transaction


@dataclass(frozen=True)
class Progress:
    """How far a run is: pictures done of `total` (None: unknown), new segments, failures, units of an earlier run."""

    done: int
    total: int | None
    segments: int
    failures: int
    resumed_units: int


Observer = Callable[[Progress], None]


def build(
    database: Database,
    request: BuildRequest,
    encoder: DenseEncoder,
    operation: str,
    observe: Observer = lambda _: None,
    *,
    restart: bool = False,
) -> RunReport:
    """Bring everything `request` names into the database as one new version.

    Finished units lie in the database's ledger until the commit, so a killed run repeats at most one unit. Segments the
    database already holds add nothing; a run that adds nothing makes no version. `restart` forgets finished units.

    Raises:
        FeatureSpaceMismatch: the encoder is not the database's.
        DatabaseError: E304 when another process is at the same build.
    """
    if database.space != encoder.space:
        raise FeatureSpaceMismatch(
            database.name, database.space.encoder, encoder.space.encoder, database.space.differences(encoder.space)
        )
    start = time.perf_counter()
    ledger = Ledger(database.path, request.job(encoder.space))
    with ledger.running():
        if restart:
            ledger.forget(ledger.units())
        outcome = _run_units(database, request, encoder, ledger, observe)
        database, intake = _commit(database, request, ledger, outcome.keys, operation)
        # Only what this run committed: the ledger may hold units of a longer run that was interrupted.
        ledger.forget(outcome.keys)
    return RunReport(
        database=database.name,
        version=database.version,
        images=outcome.images,
        added=intake.added,
        known=outcome.known + intake.known,
        capped=intake.capped,
        classes=_class_counts(database, request),
        resumed_units=outcome.resumed,
        content_hash=database.content_hash(),
        seconds=time.perf_counter() - start,
        failures=tuple(outcome.failures),
        warnings=(*request.corpus.warnings(), *_elsewhere_warnings(database, outcome.elsewhere)),
    )


@dataclass
class _Outcome:
    keys: list[str] = field(default_factory=list)
    images: int = 0
    segments: int = 0
    known: int = 0
    resumed: int = 0
    elsewhere: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)


def _run_units(
    database: Database, request: BuildRequest, encoder: DenseEncoder, ledger: Ledger, observe: Observer
) -> _Outcome:
    outcome = _Outcome()
    for unit, loaded in prefetched(_loaded_units(request, ledger), ahead=1):
        if loaded is None:
            outcome.resumed += 1
            facts = ledger.read(unit.key)[2]
        else:
            result = run_unit(loaded, request, encoder, database.live_labels)
            facts = _facts(result)
            database.store_thumbnails(result.thumbnails)
            ledger.put(unit.key, result.segments, result.vectors, facts)
        outcome.keys.append(unit.key)
        outcome.images += len(unit.images)
        outcome.segments += facts["segments"]
        outcome.known += facts["known"]
        outcome.elsewhere.update({(label, stored): count for label, stored, count in facts["elsewhere"]})
        outcome.failures.extend(Failure(**failure) for failure in facts["failures"])
        observe(Progress(outcome.images, request.size(), outcome.segments, len(outcome.failures), outcome.resumed))
    return outcome


def _loaded_units(request: BuildRequest, ledger: Ledger) -> Iterator[tuple[WorkUnit, LoadedUnit | None]]:
    """Units in plan order, decoded; None for those that an earlier run finished."""
    for unit in work_units(request.images(), request.batch):
        yield unit, None if ledger.has(unit.key) else load_unit(unit)


def _facts(result: UnitResult) -> dict[str, Any]:
    return {
        "segments": len(result.segments),
        "known": result.known,
        "elsewhere": [[*labels, count] for labels, count in sorted(result.elsewhere.items())],
        "failures": [asdict(f) for f in result.failures],
    }


def _elsewhere_warnings(database: Database, elsewhere: Mapping[tuple[str, str], int]) -> list[str]:
    """Regions that are stored under a class other than the one they come with now."""
    names = {normalise_name(name): item.name for item in database.classes for name in (*item.aliases, item.name)}
    return [
        f"{count} regions labelled '{label}' are stored as '{stored}' already and stay so; "
        f"retclip db relabel {database.name} '{stored}' '{label}' --ids FILE moves them"
        for (label, stored), count in elsewhere.items()
        if names.get(normalise_name(label), label) != names.get(normalise_name(stored), stored)
    ]


class _Intake:
    """What a commit takes: counts per class, under the name that the database uses, and the cap on them."""

    def __init__(self, database: Database, cap: int | None) -> None:
        self._live_labels, self._cap = database.live_labels, cap
        self._kinds = {item.name: item.is_thing for item in database.classes}
        self._names = {
            normalise_name(name): item.name for item in database.classes for name in (*item.aliases, item.name)
        }
        self._counts = Counter({item.name: item.count for item in database.classes})
        self._taken: set[int] = set()
        self.added = self.known = self.capped = 0

    def count(self, label: str) -> int:
        """Live segments of the class that `label` names, with those taken so far."""
        return self._counts[self._name(label)]

    def add(self, transaction: Transaction, segments: list[StoredSegment], vectors: npt.NDArray[np.floating]) -> None:
        """Add the segments of a unit as far as the cap allows; those that are there already do not count."""
        segments = [self._of_known_kind(segment) for segment in segments]
        rows = list(range(len(segments))) if self._cap is None else self._below_cap(segments, self._cap)
        for row in rows:
            self._counts[self._name(segments[row].label)] += 1
        if rows:
            added = transaction.add([segments[row] for row in rows], vectors[np.asarray(rows, dtype=np.int64)])
            self.added += added
            self.known += len(rows) - added

    def _below_cap(self, segments: list[StoredSegment], cap: int) -> list[int]:
        stored = self._live_labels([segment.segment_id for segment in segments])
        room: Counter[str] = Counter()
        rows = []
        for row, segment in enumerate(segments):
            name = self._name(segment.label)
            if segment.segment_id in stored or segment.segment_id in self._taken:
                self.known += 1
            elif self._counts[name] + room[name] >= cap:
                self.capped += 1
            else:
                room[name] += 1
                self._taken.add(segment.segment_id)
                rows.append(row)
        return rows

    def _of_known_kind(self, segment: StoredSegment) -> StoredSegment:
        """Thing or stuff as the class already is: a folder of photos cannot say, and must not turn sky into a thing."""
        is_thing = self._kinds.get(self._name(segment.label), segment.is_thing)
        return segment if is_thing == segment.is_thing else replace(segment, is_thing=is_thing)

    def _name(self, label: str) -> str:
        return self._names.get(normalise_name(label), label)


def _commit(
    database: Database, request: BuildRequest, ledger: Ledger, keys: list[str], operation: str
) -> tuple[Database, _Intake]:
    """Write the ledger's units in plan order; returns the newest version and what was taken."""
    intake = _Intake(database, request.per_class_cap)
    with database.write(operation, f"retclip {__version__}", request.shard_rows) as transaction:
        for key in keys:
            segments, vectors, _ = ledger.read(key)
            intake.add(transaction, segments, vectors)
        if intake.added == 0:
            return database, intake
        _declare_aliases(transaction, request, intake)
        transaction.record_models(request.models)
        note = f"{intake.added} segments from {request.corpus.name}"
        return transaction.commit(note + told(transaction.compact())), intake


def _declare_aliases(transaction: Transaction, request: BuildRequest, intake: _Intake) -> None:
    """Synonyms of the stored classes; a synonym that is another class's own name would swallow that class later."""
    names = {normalise_name(item.name) for item in request.corpus.classes}
    for item in request.wanted().values():
        aliases = [alias for alias in item.aliases if normalise_name(alias) not in names]
        if aliases and intake.count(item.name):
            transaction.declare(item.name, aliases)


def _class_counts(database: Database, request: BuildRequest) -> dict[str, int]:
    touched = {normalise_name(item.name) for item in request.wanted().values()}
    return {
        item.name: item.count
        for item in database.classes
        if touched & {normalise_name(name) for name in (item.name, *item.aliases)}
    }
