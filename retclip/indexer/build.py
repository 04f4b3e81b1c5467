"""The walk of a build: plan -> units -> ledger -> one commit. Interrupted anywhere, it goes on where it stopped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip import __version__
from retclip.core.errors import FeatureSpaceMismatch
from retclip.core.segments import StoredSegment
from retclip.core.vocabulary import normalise_name
from retclip.indexer.plan import BuildRequest, work_units
from retclip.indexer.report import RunReport
from retclip.indexer.units import Failure, UnitResult, run_unit
from retclip.ports.encoders import DenseEncoder
from retclip.shards import Database, Ledger
from retclip.shards.transaction import Transaction


@dataclass(frozen=True)
class Progress:
    """How far a run is: pictures done of `total`, new segments, failures, units taken from an earlier run."""

    done: int
    total: int
    segments: int
    failures: int
    resumed_units: int


class Interrupted(Exception):
    """The user asked to stop; every finished unit is kept."""


Observer = Callable[[Progress], None]


def build(
    database: Database, request: BuildRequest, encoder: DenseEncoder, operation: str, observe: Observer = lambda _: None
) -> RunReport:
    """Bring everything `request` names into the database as one new version.

    Finished units lie in the database's ledger until the commit, so a killed run repeats at most one unit. Segments the
    database already holds add nothing; a run that adds nothing makes no version.

    Raises:
        FeatureSpaceMismatch: the encoder is not the database's.
    """
    if database.space != encoder.space:
        raise FeatureSpaceMismatch(
            database.name, database.space.encoder, encoder.space.encoder, database.space.differences(encoder.space)
        )
    start = time.perf_counter()
    ledger = Ledger(database.path, request.job(encoder.space))
    outcome = _run_units(database, request, encoder, ledger, observe)
    database, capped = _commit(database, request, ledger, outcome.keys, operation)
    ledger.remove()
    return RunReport(
        database=database.name,
        version=database.version,
        images=outcome.images,
        added=outcome.segments - capped.total(),
        known=outcome.known,
        capped=capped.total(),
        classes=_class_counts(database, request),
        resumed_units=outcome.resumed,
        content_hash=database.content_hash(),
        seconds=time.perf_counter() - start,
        failures=tuple(outcome.failures),
        warnings=tuple(request.corpus.warnings()),
    )


@dataclass
class _Outcome:
    keys: list[str] = field(default_factory=list)
    images: int = 0
    segments: int = 0
    known: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)


def _run_units(
    database: Database, request: BuildRequest, encoder: DenseEncoder, ledger: Ledger, observe: Observer
) -> _Outcome:
    total = sum(1 for _ in request.images())
    outcome = _Outcome()
    for unit in work_units(request.images(), request.batch):
        if ledger.has(unit.key):
            outcome.resumed += 1
            facts = ledger.read(unit.key)[2]
        else:
            result = run_unit(unit, request, encoder, database.live_ids)
            facts = _facts(result)
            database.store_thumbnails(result.thumbnails)
            ledger.put(unit.key, result.segments, result.vectors, facts)
        outcome.keys.append(unit.key)
        outcome.images += len(unit.images)
        outcome.segments += facts["segments"]
        outcome.known += facts["known"]
        outcome.failures.extend(Failure(**failure) for failure in facts["failures"])
        observe(Progress(outcome.images, total, outcome.segments, len(outcome.failures), outcome.resumed))
    return outcome


def _facts(result: UnitResult) -> dict[str, Any]:
    return {"segments": len(result.segments), "known": result.known, "failures": [asdict(f) for f in result.failures]}


def _commit(
    database: Database, request: BuildRequest, ledger: Ledger, keys: list[str], operation: str
) -> tuple[Database, Counter[str]]:
    """Write the ledger's units in plan order; returns the newest version and what the cap left out, per class."""
    capped: Counter[str] = Counter()
    counts = Counter({item.name: item.count for item in database.classes})
    added = 0
    with database.write(operation, f"retclip {__version__}", request.shard_rows) as transaction:
        for key in keys:
            added += _add_unit(transaction, ledger.read(key), request.per_class_cap, counts, capped)
        if added == 0:
            return database, capped
        _declare_aliases(transaction, request, counts)
        return transaction.commit(f"{added} segments from {request.corpus.name}"), capped


def _add_unit(
    transaction: Transaction,
    unit: tuple[list[StoredSegment], npt.NDArray[np.floating], dict[str, Any]],
    cap: int | None,
    counts: Counter[str],
    capped: Counter[str],
) -> int:
    segments, vectors, _ = unit
    keep = []
    for row, segment in enumerate(segments):
        if cap is not None and counts[segment.label] >= cap:
            capped[segment.label] += 1
            continue
        counts[segment.label] += 1
        keep.append(row)
    return transaction.add([segments[row] for row in keep], vectors[np.asarray(keep, dtype=np.int64)]) if keep else 0


def _declare_aliases(transaction: Transaction, request: BuildRequest, counts: Counter[str]) -> None:
    """Synonyms of the stored classes; a synonym that is another class's own name would swallow that class later."""
    names = {normalise_name(item.name) for item in request.corpus.classes}
    for item in request.wanted().values():
        aliases = [alias for alias in item.aliases if normalise_name(alias) not in names]
        if aliases and counts[item.name]:
            transaction.declare(item.name, aliases)


def _class_counts(database: Database, request: BuildRequest) -> dict[str, int]:
    touched = {item.name for item in request.wanted().values()}
    return {item.name: item.count for item in database.classes if item.name in touched}


def unfinished_jobs(database: Database) -> Iterator[tuple[str, int]]:
    """(job, finished units) of builds that were interrupted before their commit."""
    for folder in sorted((database.path / "jobs").iterdir()):
        if folder.is_dir():
            yield folder.name, len(Ledger(database.path, folder.name).units())
