"""A whole run in miniature is that of the commands, and goes on where it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.playground.claims import CLAIMS
from benchmarks.playground.intervals import quality_of
from benchmarks.playground.measure import Outcome, measure, observe, outcome_path
from benchmarks.playground.run import stages
from benchmarks.playground.summary import summary
from benchmarks.playground.tables import markdown
from benchmarks.playground.trials import (
    IN_DOMAIN,
    REFERENCES,
    TABLES,
    all_trials,
)
from benchmarks.playground.world import GROUPS, STORED, VOCABULARY, World, run_identity
from retclip.cli.main import main
from retclip.presets import load_preset
from retclip.shards import Database


def test_worlds_differ_by_seed_and_are_made_once(world: World, tmp_path: Path) -> None:
    before = {name: Database.open(world.database_path(name)).version for name in ("a", "b", "a-half")}
    world.make()
    assert before == {name: Database.open(world.database_path(name)).version for name in ("a", "b", "a-half")}
    other = replace(world, folder=tmp_path, seed=6)
    other.draw("a", "val")
    ours, theirs = (w.pictures_of("a").images[0].path.read_bytes() for w in (world, other))
    assert ours != theirs
    stored = {item.name for item in Database.open(world.database_path("a-half")).classes}
    kept = {category.name for category, inside in zip(VOCABULARY, STORED, strict=True) if inside}
    assert stored <= kept
    assert {item.name for item in Database.open(world.database_path("a")).classes} - kept


def test_another_size_or_network_is_another_run(preset_file: Path) -> None:
    preset = load_preset(str(preset_file))
    name, networks = run_identity(preset, 200, 100)
    assert [record["role"] for record in networks] == ["encoder", "detector", "masker"]
    assert run_identity(preset, 200, 100)[0] == name
    assert run_identity(preset, 200, 99)[0] != name
    assert run_identity(replace(preset, encoder=replace(preset.encoder, short_side=96)), 200, 100)[0] != name


@pytest.mark.parametrize("proposals", ["fcclip", "given"])
def test_figures_are_those_of_the_command(world: World, preset_file: Path, tmp_path: Path, proposals: str) -> None:
    trial = replace(IN_DOMAIN, proposals=proposals)
    observe(world, trial.proposals)
    measure(world, trial)
    found = Outcome.read(outcome_path(world, trial))
    merge = trial.preset(world.preset).merge
    changes = [f"merge.rule={merge.rule}", f"merge.overlap_threshold={merge.overlap_threshold}"]
    words = ["eval", "--dataset", "playground", "--root", str(world.folder / "a"), "--out", str(tmp_path), "--quiet"]
    words += ["--db", str(world.database_path("a")), "--preset", str(preset_file), "--proposals", proposals]
    words += [word for change in changes for word in ("--set", change)]
    assert main([*words, "--allow-leak", "--resamples", "10", "--device", "cpu"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    for metric, groups in found.figures.items():
        assert groups == {"all": report[metric], "seen": report["seen"][metric], "unseen": report["unseen"][metric]}
    assert found.label_accuracy == report["label_accuracy"]
    assert quality_of(found.counts, GROUPS["all"]) == pytest.approx(report["pq"], abs=1e-4)


@pytest.fixture(scope="module")
def results(world: World) -> Mapping[str, Any]:
    """A whole run on one seed, in this process."""
    networks = [function(*arguments) for stage in stages([world]) for _, function, arguments in stage][-1]
    outcomes = {trial: [Outcome.read(outcome_path(world, trial))] for trial in all_trials()}
    run = {"command": "a command", "seeds": 1, "scenes": 12, "pictures": 2}
    return {"run": run, **summary(outcomes, [networks])}


def test_a_run_fills_every_row_of_every_table(results: Mapping[str, Any]) -> None:
    json.dumps(results, allow_nan=False)
    for table, rows in TABLES.items():
        assert list(results["tables"][table]) == list(rows)
        own = results["tables"][table][REFERENCES[table]]["pq_difference"]["all"]
        assert (own["mean"], own["low"], own["high"]) == (0, 0, 0)
    assert results["tables"]["proposals"]["ground truth"]["figures"]["pq"]["all"]["mean"] > 0
    assert [claim["holds"] for claim in results["claims"]].count("yes") < len(CLAIMS)
    masks = results["networks"]["masker: IoU from annotated boxes"]
    assert 0 < masks["all"]["mean"] < 100


def test_the_page_shows_all_of_it(results: Mapping[str, Any]) -> None:
    page = markdown(results)
    for rows in TABLES.values():
        assert all(f"| {label} |" in page for label in rows)
    assert all(claim.text in page for claim in CLAIMS)
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)
    assert "nan" not in page


def test_a_second_start_measures_nothing_again(results: Mapping[str, Any], world: World) -> None:
    paths = sorted((world.folder / "outcomes").iterdir())
    assert len(paths) == len(all_trials())
    _, observed, labelled, _ = stages([world])
    assert labelled == []
    assert len(observed) == 4
    paths[0].unlink()
    (_, function, arguments) = stages([world])[2][0]
    function(*arguments)
    assert paths[0].is_file()
