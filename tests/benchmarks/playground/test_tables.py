"""The rows of the tables, and the classes that they are about."""

from __future__ import annotations

from pathlib import Path

from benchmarks.playground.claims import CLAIMS
from benchmarks.playground.tables import TITLES
from benchmarks.playground.trials import (
    BASELINE,
    REFERENCES,
    SWEEP_ROWS,
    TABLES,
    all_trials,
    candidates_of,
)
from benchmarks.playground.world import GROUPS, IS_THING, SEEN, STORED


def test_every_table_names_rows_that_exist() -> None:
    assert set(TABLES) == set(REFERENCES) == set(TITLES)
    assert all(REFERENCES[table] in rows for table, rows in TABLES.items())
    for claim in CLAIMS:
        rows = TABLES[claim.table]
        assert rows[claim.better] != rows[claim.worse]
        assert claim.group in GROUPS
    trials = all_trials()
    assert len({trial.key for trial in trials}) == len(trials)
    rows = [row for table in TABLES.values() for row in table.values()]
    assert all(trial in trials for row in rows for trial in candidates_of(row))


def test_the_sweep_is_that_of_the_papers_page() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "paper.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("## Table 4")[2].splitlines() if line.startswith("| ")][1:]
    assert [line.split("|")[1].strip() for line in rows] == list(SWEEP_ROWS)
    assert BASELINE.fusion.mode == "geometric"
    assert (BASELINE.fusion.beta, BASELINE.fusion.gamma) == (0.8, 0.0)


def test_half_of_every_kind_of_class_is_stored() -> None:
    for things in (IS_THING, ~IS_THING):
        for seen in (SEEN, ~SEEN):
            kind = things & seen
            assert 0 <= 2 * (STORED & kind).sum() - kind.sum() <= 1
