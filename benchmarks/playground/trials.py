"""The rows of the tables: which proposals, which database, which settings. Values only; `measure` carries them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from benchmarks.playground.world import DatabaseName
from retclip.presets import FusionSettings, MergeSettings, Preset, RetrievalSettings

ProposalKind = Literal["fcclip", "given", "gdino-sam", "sam-grid"]

# The paper's settings (RetCLIP, section 4).
NEAREST = RetrievalSettings(k=32, rule="minmax", transform="none")
ENSEMBLE = FusionSettings(mode="arithmetic", alpha=0.4, beta=0.7, gamma=0.3)
# FC-CLIP as released: geometric, 0.4 and 0.8, and no database has a say.
RELEASED = FusionSettings(mode="geometric", alpha=0.4, beta=0.8, gamma=0.0)
# As the presets of the paper have it: queries of FC-CLIP compete for pixels, all other masks overlap by design.
_ARGMAX = MergeSettings(rule="argmax", overlap_threshold=0.8)
_GREEDY = MergeSettings(rule="greedy", overlap_threshold=0.5)
GRID = 16  # points per side; SAM's 32 would cost half of the run


@dataclass(frozen=True)
class Trial:
    """One way to label the pictures.

    Attributes:
        proposals: where masks come from.
        database: which database answers.
        fusion, retrieval: settings of the query.
        fitted: `fusion.reliability` is fitted on the database's own segments.
    """

    proposals: ProposalKind = "fcclip"
    database: DatabaseName = "a"
    fusion: FusionSettings = ENSEMBLE
    retrieval: RetrievalSettings = NEAREST
    fitted: bool = False

    @property
    def key(self) -> str:
        """File name of its outcome; trials of several tables that are equal are carried out once."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def preset(self, base: Preset) -> Preset:
        """The networks of `base` with the settings of this trial."""
        merge = _ARGMAX if self.proposals == "fcclip" else _GREEDY
        proposals = replace(base.proposals, grid=GRID)
        return replace(base, proposals=proposals, retrieval=self.retrieval, fusion=self.fusion, merge=merge)

    def described(self) -> dict[str, Any]:
        """Proposals, database, and the settings that are not the paper's by their names in a preset."""
        pairs = ((self.fusion, ENSEMBLE, "fusion"), (self.retrieval, NEAREST, "retrieval"))
        found = {
            f"{section}.{name}": value
            for settings, paper, section in pairs
            for name, value in asdict(settings).items()
            if value != getattr(paper, name)
        }
        settings = found | ({"fusion.reliability": "fitted"} if self.fitted else {})
        return {"proposals": self.proposals, "database": self.database, "settings": settings}


@dataclass(frozen=True)
class Choice:
    """Whichever of several trials has the highest PQ on the other seeds; the first one where there are none."""

    candidates: tuple[Trial, ...]

    def described(self) -> dict[str, Any]:
        """Proposals and database of the candidates."""
        return {**self.candidates[0].described(), "settings": "chosen on the other seeds"}


Row = Trial | Choice
Rows = Mapping[str, Row]

BASELINE = Trial(fusion=RELEASED)
FOREIGN = Trial(database="b")
IN_DOMAIN = Trial()

DATABASE_ROWS: Rows = {
    "FC-CLIP alone": BASELINE,
    "+ database of domain B": FOREIGN,
    "+ database of domain A": IN_DOMAIN,
}

DETECTED = Trial(proposals="gdino-sam")

SCORE_ROWS: Rows = {
    "CLIP only": replace(DETECTED, fusion=replace(ENSEMBLE, gamma=0.0)),
    "retrieval only": replace(DETECTED, fusion=replace(ENSEMBLE, gamma=1.0)),
    "both": DETECTED,
    "both, gamma chosen": Choice(
        tuple(replace(DETECTED, fusion=replace(ENSEMBLE, gamma=gamma)) for gamma in (0.3, 0.5, 0.7, 0.9))
    ),
}

PROPOSAL_ROWS: Rows = {
    "ground truth": Trial(proposals="given"),
    "SAM grid": Trial(proposals="sam-grid"),
    "Grounding DINO + SAM": DETECTED,
}

# The settings of the paper's table 4, in its order.
_SWEEP = (
    (1.0, 1.0, 0.3), (0.5, 0.7, 0.3), (0.4, 0.9, 0.3), (0.4, 0.8, 0.3), (0.4, 0.7, 1.0), (0.4, 0.7, 0.7),
    (0.4, 0.7, 0.6), (0.4, 0.7, 0.5), (0.4, 0.7, 0.4), (0.4, 0.7, 0.3), (0.4, 0.7, 0.2), (0.4, 0.7, 0.1),
    (0.4, 0.7, 0.0), (0.3, 0.7, 0.3),
)  # fmt: skip


def sweep_label(alpha: float, beta: float, gamma: float) -> str:
    """How a row of the sweep is called."""
    return f"{alpha:g}, {beta:g}, {gamma:g}"


SWEEP_ROWS: Rows = {
    sweep_label(alpha, beta, gamma): Trial(fusion=FusionSettings(alpha=alpha, beta=beta, gamma=gamma))
    for alpha, beta, gamma in _SWEEP
}

_VOTING = replace(NEAREST, rule="voting")
_CENTRED = replace(_VOTING, transform="centre")
_TRUSTING = replace(ENSEMBLE, gamma_by_class=True)

PAPER = "the paper's settings"

OPTION_ROWS: Rows = {
    PAPER: IN_DOMAIN,
    "geometric ensemble": Trial(fusion=replace(ENSEMBLE, mode="geometric")),
    "keys centred": Trial(retrieval=replace(NEAREST, transform="centre")),
    "keys standardised": Trial(retrieval=replace(NEAREST, transform="standardise")),
    "keys whitened": Trial(retrieval=replace(NEAREST, transform="whiten")),
    "voting": Trial(retrieval=_VOTING),
    "voting, keys centred": Trial(retrieval=_CENTRED),
    "min-max over the picture": Trial(retrieval=replace(NEAREST, minmax="image")),
    "min-max over classes": Trial(retrieval=replace(NEAREST, minmax="classes")),
    "4 of a class, their mean": Trial(retrieval=replace(NEAREST, per_class_k=4, aggregate="mean")),
    "10 classes a picture": Trial(retrieval=replace(NEAREST, prune_classes=10)),
    "void corrected": Trial(fusion=replace(ENSEMBLE, void="corrected")),
    "gamma by query": Trial(fitted=True),
    "voting, centred, gamma by query": Trial(retrieval=_CENTRED, fitted=True),
    "the same, void corrected": Trial(retrieval=_CENTRED, fusion=replace(ENSEMBLE, void="corrected"), fitted=True),
}

_HALF = Trial(database="a-half")

ABSENT_ROWS: Rows = {
    "FC-CLIP alone": BASELINE,
    "no retrieval (gamma 0)": replace(_HALF, fusion=replace(ENSEMBLE, gamma=0.0)),
    PAPER: _HALF,
    "gamma by class": replace(_HALF, fusion=_TRUSTING),
    "gamma by query": replace(_HALF, fitted=True),
    "gamma by class and query": replace(_HALF, fusion=_TRUSTING, fitted=True),
    "voting, keys centred": replace(_HALF, retrieval=_CENTRED),
    "voting, centred, gamma by class": replace(_HALF, retrieval=_CENTRED, fusion=_TRUSTING),
    "all of them": replace(_HALF, retrieval=_CENTRED, fusion=_TRUSTING, fitted=True),
}

_WEIGHTS = ((0.4, 0.7), (0.4, 1.0), (0.7, 0.7), (0.7, 1.0), (1.0, 1.0))


def _choice(database: DatabaseName, gammas: tuple[float, ...]) -> Choice:
    """The paper's retrieval with other weights."""
    weights = [(alpha, beta, gamma) for gamma in gammas for alpha, beta in _WEIGHTS]
    settings = (FusionSettings(alpha=alpha, beta=beta, gamma=gamma) for alpha, beta, gamma in weights)
    return Choice(tuple(Trial(database=database, fusion=fusion) for fusion in settings))


CHOSEN_ROWS: Rows = {
    "no database": Choice((*_choice("a", (0.0,)).candidates, BASELINE)),
    "database of domain B": _choice("b", (0.3, 0.7, 1.0)),
    "database of domain A": _choice("a", (0.3, 0.7, 1.0)),
}

TABLES: Mapping[str, Rows] = {
    "databases": DATABASE_ROWS,
    "scores": SCORE_ROWS,
    "proposals": PROPOSAL_ROWS,
    "sweep": SWEEP_ROWS,
    "chosen": CHOSEN_ROWS,
    "options": OPTION_ROWS,
    "absent": ABSENT_ROWS,
}

# The row of every table that the others are compared with.
REFERENCES: Mapping[str, str] = {
    "databases": "FC-CLIP alone",
    "scores": "CLIP only",
    "proposals": "Grounding DINO + SAM",
    "sweep": sweep_label(0.4, 0.7, 0.3),
    "chosen": "no database",
    "options": PAPER,
    "absent": PAPER,
}


def all_trials() -> list[Trial]:
    """Every trial once, in the order of the tables."""
    rows = [row for table in TABLES.values() for row in table.values()]
    return list(dict.fromkeys(trial for row in rows for trial in candidates_of(row)))


def candidates_of(row: Row) -> tuple[Trial, ...]:
    """The trials behind a row."""
    return row.candidates if isinstance(row, Choice) else (row,)
