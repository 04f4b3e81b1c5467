"""What a run did: numbers, and every failed picture by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from retclip.indexer.units import Failure
from retclip.shards import Database


@dataclass(frozen=True)
class RunReport:
    """Outcome of a build or of add-classes.

    Attributes:
        database, version: what holds the result.
        images: pictures looked at; failures: those that could not be used.
        added: new segments; known: segments that were there before; capped: left out by the cap per class.
        classes: live segments per class that this run touched.
        resumed_units: units that an interrupted run had finished.
        content_hash: of the database version.
        seconds: wall-clock time of this run.
        warnings: what the corpus had to say.
    """

    database: str
    version: int
    images: int
    added: int
    known: int
    capped: int
    classes: Mapping[str, int]
    resumed_units: int
    content_hash: str
    seconds: float
    failures: tuple[Failure, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def unchanged(database: Database) -> RunReport:
    """The report of a run that found nothing to do."""
    return RunReport(database.name, database.version, 0, 0, 0, 0, {}, 0, database.content_hash(), 0.0, (), ())
