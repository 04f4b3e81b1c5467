"""The words of a report: labels made safe for one line, shares and scores as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from retclip.core.results import Expert, Explanation

EXPERTS: Final[tuple[Expert, ...]] = ("retrieval", "clip", "in-vocab")
EXPERT_NAMES: Final[Mapping[Expert, str]] = {"retrieval": "retrieval", "clip": "CLIP", "in-vocab": "in-vocab"}
BADGES: Final[Mapping[Expert, str]] = {"retrieval": "R", "clip": "C", "in-vocab": "V"}

# Segments below this score get a dashed outline and a mark in every report.
LOW_CONFIDENCE: Final = 0.5

# Persian, Indic scripts and emoji need these two invisible characters.
_JOINERS: Final = "\u200c\u200d"


def one_line(text: str, limit: int = 200) -> str:
    """Text from outside as one printable line of at most `limit` characters.

    Control characters would move a terminal's cursor and format characters would reverse the rest of a line, so
    both are dropped; runs of blanks become one.
    """
    blanks = "".join(" " if character.isspace() else character for character in text)
    line = " ".join("".join(c for c in blanks if c.isprintable() or c in _JOINERS).split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as `41 %`, or `41.2 %` with one digit; a share that is there never reads as nothing."""
    smallest = 10.0**-digits
    if 0 < share * 100 < smallest / 2:
        return f"<{smallest:.{digits}f} %"
    return f"{share * 100:.{digits}f} %"


def caption(explanation: Explanation, limit: int = 28) -> str:
    """What is written on a segment: `label 87%`."""
    return f"{one_line(explanation.label, limit)} {explanation.segment.score * 100:.0f}%"


def is_uncertain(explanation: Explanation) -> bool:
    """Whether the segment's score is below `LOW_CONFIDENCE`."""
    return explanation.segment.score < LOW_CONFIDENCE


def database_names(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the databases in `run["db"]`, a list of objects with a `name`; empty where the run does not say."""
    databases = run.get("db", ())
    return tuple(str(db["name"]) for db in databases if isinstance(db, Mapping) and "name" in db)
