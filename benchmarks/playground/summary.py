"""Outcomes of all trials and seeds -> tables, network figures and verdicts as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.playground.claims import CLAIMS, judge
from benchmarks.playground.intervals import Figure, over_seeds, paired_difference, quality_of
from benchmarks.playground.measure import METRICS, Outcome
from benchmarks.playground.networks import Shares
from benchmarks.playground.trials import REFERENCES, TABLES, Choice, Row, Trial
from benchmarks.playground.world import GROUPS, HALVES
from retclip.evaluation.class_groups import harmonic_mean

Outcomes = Mapping[Trial, Sequence[Outcome]]


def summary(outcomes: Outcomes, networks: Sequence[Shares]) -> dict[str, Any]:
    """What the results say; outcomes and networks hold one entry per seed."""
    tables: dict[str, dict[str, Any]] = {}
    counts: dict[str, Any] = {}
    for table, rows in TABLES.items():
        found = {
            label: [outcomes[trial][seed] for seed, trial in enumerate(trials_of(row, outcomes))]
            for label, row in rows.items()
        }
        counts[table] = {label: [outcome.counts for outcome in seeds] for label, seeds in found.items()}
        reference = found[REFERENCES[table]]
        tables[table] = {
            label: _described(row, outcomes) | _figures(found[label], reference) for label, row in rows.items()
        }
    verdicts = [judge(claim, counts) for claim in CLAIMS]
    return {
        "tables": tables,
        "networks": _joined(networks),
        "claims": [
            {**asdict(verdict.claim), "holds": verdict.holds, "difference": _document(verdict.difference)}
            for verdict in verdicts
        ],
    }


def trials_of(row: Row, outcomes: Outcomes) -> list[Trial]:
    """The trial that stands for a row in every seed; a choice is made on the other seeds alone."""
    if isinstance(row, Trial):
        return [row] * len(outcomes[row])
    qualities = np.array([[quality_of(o.counts, GROUPS["all"]) for o in outcomes[trial]] for trial in row.candidates])
    # The first of equals, so with one seed the first candidate.
    best = (qualities.sum(axis=1, keepdims=True) - qualities).argmax(axis=0)
    return [row.candidates[place] for place in best.tolist()]


def _described(row: Row, outcomes: Outcomes) -> dict[str, Any]:
    if isinstance(row, Choice):
        return {**row.described(), "chosen": [trial.described()["settings"] for trial in trials_of(row, outcomes)]}
    return row.described()


def _figures(found: Sequence[Outcome], reference: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of a row over seeds, and how its PQ differs from that of the reference row."""
    figures = {
        metric: {group: _over([outcome.figures[metric][group] for outcome in found]) for group in GROUPS}
        for metric in METRICS
    }
    halves = {name: [quality_of(o.counts, chosen) for o in found] for name, chosen in HALVES.items()}
    halves["harmonic"] = [harmonic_mean(*pair) for pair in zip(*halves.values(), strict=True)]
    own, others = ([outcome.counts for outcome in row] for row in (found, reference))
    differences = {name: paired_difference(own, others, chosen) for name, chosen in (GROUPS | HALVES).items()}
    return {
        "figures": figures,
        "pq_of_halves": {name: _over(values) for name, values in halves.items()},
        "label_accuracy": _over([outcome.label_accuracy for outcome in found]),
        "pq_difference": {name: _document(difference) for name, difference in differences.items()},
    }


def _over(values: Sequence[float | None]) -> dict[str, Any]:
    """A figure over seeds; seeds in which nothing could be averaged do not count."""
    known = [value for value in values if value is not None]
    return _document(over_seeds(known)) if known else {"mean": None, "low": None, "high": None, "seeds": []}


def _document(figure: Figure) -> dict[str, Any]:
    bounds = {name: _plain(getattr(figure, name)) for name in ("mean", "low", "high")}
    return {**bounds, "seeds": [_plain(value) for value in figure.seeds]}


def _joined(networks: Sequence[Shares]) -> dict[str, dict[str, Any]]:
    """Row -> group -> figure over the seeds that have it."""
    rows = dict.fromkeys(row for shares in networks for row in shares)
    return {
        row: {
            group: _over([shares[row][group] for shares in networks if group in shares.get(row, {})])
            for group in dict.fromkeys(group for shares in networks for group in shares.get(row, {}))
        }
        for row in rows
    }


def _plain(value: float) -> float | None:
    """A figure for JSON, which has no word for NaN."""
    return None if math.isnan(value) else round(value, 4)
