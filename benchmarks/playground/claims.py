"""What the paper finds, as comparisons of two rows; whether each holds here is computed, never written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.playground.intervals import Figure, paired_difference
from benchmarks.playground.measure import Counts
from benchmarks.playground.trials import CHOSEN_ROWS, DATABASE_ROWS, sweep_label
from benchmarks.playground.world import GROUPS


@dataclass(frozen=True)
class Claim:
    """One finding: in `table`, row `better` lies more than `margin` points of PQ above row `worse`.

    Attributes:
        text: for people.
        group: of classes over which PQ is averaged, a key of `GROUPS`.
    """

    text: str
    table: str
    better: str
    worse: str
    group: str = "all"
    margin: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Whether a claim holds: `yes` or `no` where the whole interval agrees, else `undecided`."""

    claim: Claim
    difference: Figure
    holds: Literal["yes", "no", "undecided"]


_NONE, _FOREIGN, _OWN = DATABASE_ROWS
_CHOSEN_NONE, _CHOSEN_FOREIGN, _CHOSEN_OWN = CHOSEN_ROWS
_LIFT = 4.0  # points of PQ on unseen classes: what an in-domain database is asked to give

CLAIMS = (
    Claim("Retrieval alone beats CLIP alone on unseen classes", "scores", "retrieval only", "CLIP only", "unseen"),
    Claim("Both together beat CLIP alone", "scores", "both", "CLIP only"),
    Claim("Both together beat retrieval alone", "scores", "both", "retrieval only"),
    Claim("A foreign database beats none", "databases", _FOREIGN, _NONE),
    Claim("The in-domain database beats the foreign one", "databases", _OWN, _FOREIGN),
    Claim("The in-domain database lifts unseen classes", "databases", _OWN, _NONE, "unseen", _LIFT),
    Claim("Annotated masks beat detector and SAM", "proposals", "ground truth", "Grounding DINO + SAM"),
    Claim("Detector and SAM beat SAM's grid", "proposals", "Grounding DINO + SAM", "SAM grid"),
    Claim("Gamma 0.3 beats no retrieval", "sweep", sweep_label(0.4, 0.7, 0.3), sweep_label(0.4, 0.7, 0)),
    Claim("Gamma 0.3 beats retrieval without CLIP", "sweep", sweep_label(0.4, 0.7, 0.3), sweep_label(0.4, 0.7, 1)),
    Claim("Gamma chosen: both together beat retrieval alone", "scores", "both, gamma chosen", "retrieval only"),
    Claim("Weights chosen: a foreign database beats none", "chosen", _CHOSEN_FOREIGN, _CHOSEN_NONE),
    Claim("Weights chosen: the in-domain database beats the foreign one", "chosen", _CHOSEN_OWN, _CHOSEN_FOREIGN),
    Claim(
        "Weights chosen: the in-domain database lifts unseen classes",
        "chosen",
        _CHOSEN_OWN,
        _CHOSEN_NONE,
        "unseen",
        _LIFT,
    ),
)


def judge(claim: Claim, counts: Mapping[str, Mapping[str, Sequence[Counts]]]) -> Verdict:
    """Compare the two rows of a claim; counts are table -> row -> (I, 4, C) of every seed."""
    rows = counts[claim.table]
    difference = paired_difference(rows[claim.better], rows[claim.worse], GROUPS[claim.group])
    if difference.low > claim.margin:
        return Verdict(claim, difference, "yes")
    return Verdict(claim, difference, "no" if difference.high < claim.margin else "undecided")
