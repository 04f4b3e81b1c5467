"""The walk of a build: plan -> units -> ledger -> one commit. Interrupted anywhere, it goes on where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip import __version__
from retclip.core.errors import FeatureSpaceMismatch
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import normalise_name
from retclip.indexer.executors import Executor, Queue, SerialExecutor
from retclip.indexer.plan import BuildRequest, WorkUnit, work_units
from retclip.indexer.report import RunReport
from retclip.indexer.units import Failure, UnitResult
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
    executor: Executor | None = None,
) -> RunReport:
    """Bring everything `request` names into the database as one new version.

    Finished units lie in the database's ledger until the commit, so a killed run repeats at most one unit, and those
    that left out what the database held then and holds no more. Segments the database already holds add nothing; a run
    that adds nothing makes no version. `restart` forgets finished units.
    `executor` runs the units elsewhere, with the networks of `request` and `encoder`; by default they run here.

    Raises:
        FeatureSpaceMismatch: the encoder is not the database's.
        DatabaseError: E304 when another process is at the same build.
        ResourceError: E330 when workers of the executor keep dying.
    """
    if database.space != encoder.space:
        raise FeatureSpaceMismatch(
            database.name, database.space.encoder, encoder.space.encoder, database.space.differences(encoder.space)
        )
    start = time.perf_counter()
    ledger = Ledger(database.path, request.job(encoder.space))
    tally = _Tally(request)
    with ledger.running():
        if restart:
            ledger.forget(ledger.units())
        _Run(database, ledger, tally).carry_out(executor or SerialExecutor(request, encoder), observe)
        database, intake = _commit(database, request, ledger, tally.keys, operation)
        # Only what this run committed: the ledger may hold units of a longer run that was interrupted.
        ledger.forget(tally.keys)
    return RunReport(
        database=database.name,
        version=database.version,
        images=tally.images,
        added=intake.added,
        known=tally.known + intake.known,
        capped=intake.capped,
        classes=_class_counts(database, request),
        resumed_units=tally.resumed,
        content_hash=database.content_hash(),
        seconds=time.perf_counter() - start,
        failures=tuple(tally.failures()),
        warnings=(*request.corpus.warnings(), *_elsewhere_warnings(database, tally.elsewhere())),
    )


class _Tally:
    """Adds up what the units of a run gave, in whatever order they are finished."""

    def __init__(self, request: BuildRequest) -> None:
        self.keys: list[str] = []
        self.images = self.segments = self.known = self.resumed = 0
        self._request, self._failed = request, 0
        self._remarks: dict[str, Mapping[str, Any]] = {}

    def plan(self) -> Iterator[WorkUnit]:
        """The units of the request, noted in plan order."""
        for unit in work_units(self._request.images(), self._request.batch):
            self.keys.append(unit.key)
            yield unit

    def add(self, unit: WorkUnit, facts: Mapping[str, Any]) -> None:
        """Count a finished unit."""
        self.images += len(unit.images)
        self.segments += facts["segments"]
        self.known += facts["known"]
        self._failed += len(facts["failures"])
        if facts["failures"] or facts["elsewhere"]:
            self._remarks[unit.key] = facts

    def progress(self) -> Progress:
        """How far the run is."""
        return Progress(self.images, self._request.size(), self.segments, self._failed, self.resumed)

    def failures(self) -> list[Failure]:
        """Failed pictures in plan order."""
        return [Failure(**failure) for facts in self._in_order() for failure in facts["failures"]]

    def elsewhere(self) -> Counter[tuple[str, str]]:
        """See `UnitResult.elsewhere`."""
        counts: Counter[tuple[str, str]] = Counter()
        for facts in self._in_order():
            counts.update({(label, stored): count for label, stored, count in facts["elsewhere"]})
        return counts

    def _in_order(self) -> Iterator[Mapping[str, Any]]:
        return (self._remarks[key] for key in self.keys if key in self._remarks)


class _Run:
    """Takes the results of an executor into the ledger."""

    def __init__(self, database: Database, ledger: Ledger, tally: _Tally) -> None:
        self._database, self._ledger, self._tally = database, ledger, tally
        self._stopping = False

    def carry_out(self, executor: Executor, observe: Observer) -> None:
        """Run all units. An interrupt of `observe` lets the running units finish, and their results are kept."""
        queue = Queue(self._tally.plan(), self._is_done, lambda: self._stopping)
        with closing(executor.results(self._database, queue)) as results:
            try:
                for unit, result in results:
                    self._take(unit, result)
                    observe(self._tally.progress())
            except KeyboardInterrupt:
                self._stopping = True
                for unit, result in results:
                    self._take(unit, result)
                raise

    def _is_done(self, unit: WorkUnit) -> bool:
        """Whether an earlier run finished the unit, and the database still holds what it left out."""
        if not self._ledger.has(unit.key):
            return False
        stored = self._ledger.report(unit.key)["stored"]
        return len(self._database.live_labels(stored)) == len(stored)

    def _take(self, unit: WorkUnit, result: UnitResult | None) -> None:
        if result is None:
            self._tally.resumed += 1
            facts = self._ledger.report(unit.key)
        else:
            facts = _facts(result)
            self._database.store_thumbnails(result.thumbnails)
            self._ledger.put(unit.key, result.segments, result.vectors, facts)
        self._tally.add(unit, facts)


def _facts(result: UnitResult) -> dict[str, Any]:
    return {
        "segments": len(result.segments),
        "known": result.known,
        "stored": sorted(result.stored),
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
        _declare_aliases(transaction, request)
        transaction.record_models(request.models)
        note = f"{intake.added} segments from {request.corpus.name}"
        return transaction.commit(note + told(transaction.compact())), intake


def _declare_aliases(transaction: Transaction, request: BuildRequest) -> None:
    """Synonyms of the stored classes; a synonym that is another class's own name would swallow that class later."""
    names = {normalise_name(item.name) for item in request.corpus.classes}
    for item in request.wanted().values():
        transaction.declare(item.name, [alias for alias in item.aliases if normalise_name(alias) not in names])


def _class_counts(database: Database, request: BuildRequest) -> dict[str, int]:
    touched = {normalise_name(item.name) for item in request.wanted().values()}
    return {
        item.name: item.count
        for item in database.classes
        if touched & {normalise_name(name) for name in (item.name, *item.aliases)}
    }
