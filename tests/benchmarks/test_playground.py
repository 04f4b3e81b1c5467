"""The playground's benchmark with random networks: figures are those of `retclip eval`, verdicts are computed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from benchmarks.playground.claims import CLAIMS, judge
from benchmarks.playground.exemplars import figures, surplus, with_exemplars
from benchmarks.playground.intervals import over_seeds, paired_difference, quality_of
from benchmarks.playground.measure import Outcome, measure, observe, outcome_path
from benchmarks.playground.networks import Tallies, match_boxes, overlap_table
from benchmarks.playground.run import stages
from benchmarks.playground.summary import summary, trials_of
from benchmarks.playground.tables import TITLES, markdown
from benchmarks.playground.trials import (
    BASELINE,
    IN_DOMAIN,
    REFERENCES,
    SWEEP_ROWS,
    TABLES,
    Choice,
    all_trials,
    candidates_of,
)
from benchmarks.playground.world import GROUPS, IS_THING, SEEN, STORED, VOCABULARY, World, run_identity
from retclip.cli.main import main
from retclip.core.masks import MaskSet
from retclip.evaluation.panoptic_quality import MapSegment, MatchCounts, summarise
from retclip.evaluation.truth import TruthMap
from retclip.ports.detection import Detections
from retclip.presets import load_preset
from retclip.segmenters.fcclip.variants import build_fcclip
from retclip.shards import Database
from tests.adapters.tiny_models import write_tiny_grounding_dino
from tests.adapters.tiny_sam import write_tiny_sam
from tests.segmenters.conftest import lively

PRESET = """
[encoder]
library = "fcclip"
model = "tiny"
weights = "fcclip.safetensors"
short_side = 64
long_side = 96

[detector]
library = "grounding_dino"
model = "tiny"
weights = "detector"

[masker]
library = "sam"
model = "tiny"
weights = "masker"

[proposals]
kind = "fcclip"
training_classes = "@playground-seen"
"""
CLASSES = len(VOCABULARY)


@pytest.fixture(scope="module")
def preset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    weights = lively(build_fcclip("tiny")).state_dict()
    save_file({name: value.clone() for name, value in weights.items()}, folder / "fcclip.safetensors")
    write_tiny_grounding_dino(folder / "detector", [word for name in VOCABULARY.names for word in name.split()])
    write_tiny_sam(folder / "masker", 0)
    (folder / "random.toml").write_text(PRESET)
    return folder / "random.toml"


@pytest.fixture(scope="module")
def world(preset_file: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One seed with 12 scenes and 2 pictures, drawn and built."""
    made = World(tmp_path_factory.mktemp("world"), load_preset(str(preset_file)), 5, 12, 2)
    made.make()
    return made


def random_counts(seed: int, pictures: int = 6) -> np.ndarray[Any, np.dtype[np.float64]]:
    random = np.random.default_rng(seed)
    table = random.integers(0, 4, (pictures, 4, CLASSES)).astype(np.float64)
    table[:, 0] = table[:, 1] * random.uniform(0.5, 1, (pictures, CLASSES))
    return table * (random.random((pictures, 1, CLASSES)) < 0.3)


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
    page = (Path(__file__).resolve().parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
    rows = [line for line in page.partition("## Table 4")[2].splitlines() if line.startswith("| ")][1:]
    assert [line.split("|")[1].strip() for line in rows] == list(SWEEP_ROWS)
    assert BASELINE.fusion.mode == "geometric"
    assert (BASELINE.fusion.beta, BASELINE.fusion.gamma) == (0.8, 0.0)


def test_half_of_every_kind_of_class_is_stored() -> None:
    for things in (IS_THING, ~IS_THING):
        for seen in (SEEN, ~SEEN):
            kind = things & seen
            assert 0 <= 2 * (STORED & kind).sum() - kind.sum() <= 1


@given(st.integers(0, 1000))
def test_quality_is_that_of_the_library(seed: int) -> None:
    table = random_counts(seed)
    total = table.sum(axis=0)
    result = summarise(MatchCounts(total[0], *(part.astype(np.int64) for part in total[1:])), IS_THING)
    for chosen in GROUPS.values():
        expected = result.mean(chosen).pq
        assert quality_of(table, chosen) == pytest.approx(0.0 if math.isnan(expected) else 100 * expected)


def test_students_interval_of_three_seeds() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert math.isnan(over_seeds([1.0]).low)


@given(st.integers(0, 100))
def test_a_difference_is_that_of_the_qualities_and_pairs_its_pictures(seed: int) -> None:
    first, second = random_counts(seed), random_counts(seed + 1000)
    found = paired_difference([first], [second], GROUPS["all"])
    assert found.mean == pytest.approx(quality_of(first, GROUPS["all"]) - quality_of(second, GROUPS["all"]))
    assert found.low <= found.high
    same = paired_difference([first, second], [first, second], GROUPS["all"])
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_a_claim_holds_only_where_its_whole_interval_does() -> None:
    right = np.zeros((5, 4, CLASSES))
    right[:, :2] = 1.0
    wrong = np.zeros((5, 4, CLASSES))
    wrong[:, 2:] = 1.0
    mixed = right.copy()
    mixed[::2] = wrong[::2]
    claim = CLAIMS[0]

    def holds(better: Any, worse: Any, margin: float = 0.0) -> str:
        counts = {claim.table: {claim.better: [better], claim.worse: [worse]}}
        return judge(replace(claim, margin=margin), counts).holds

    assert holds(right, wrong) == "yes"
    assert holds(wrong, right) == "no"
    assert holds(right, right) == "undecided"
    assert holds(right, mixed, 101.0) == "no"
    assert holds(right, mixed, 50.0) == "undecided"


def test_a_choice_never_looks_at_its_own_seed() -> None:
    good, bad = np.zeros((2, 4, CLASSES)), np.zeros((2, 4, CLASSES))
    good[:, :2], bad[:, 2:] = 1.0, 1.0
    first, second = BASELINE, IN_DOMAIN
    seeds = {first: [good, bad, bad], second: [bad, good, good]}
    outcomes = {trial: [Outcome({}, None, counts) for counts in found] for trial, found in seeds.items()}
    assert trials_of(Choice((first, second)), outcomes) == [second, first, first]
    assert trials_of(first, outcomes) == [first] * 3
    alone = {trial: found[1:2] for trial, found in outcomes.items()}
    assert trials_of(Choice((first, second)), alone) == [first]


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


def test_a_box_finds_one_segment_of_its_class() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    found = Detections(
        torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [19, 20, 30, 30]]),
        torch.tensor([4, 4, 5, 7]),
        torch.tensor([0.9, 0.8, 0.7, 0.6]),
        ("p",) * 4,
    )
    assert match_boxes(found, boxes, [4, 7]).tolist() == [0, -1, -1, 1]
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), ())
    assert match_boxes(nothing, boxes, [4, 7]).tolist() == []


def test_overlaps_are_counted_by_pixels() -> None:
    ids = np.zeros((4, 4), np.int32)
    ids[:2], ids[2:] = 7, 3
    truth = TruthMap(ids, (MapSegment(3, 1), MapSegment(7, 2)), ids)
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :3] = True
    masks[1, 3] = True
    table = overlap_table(MaskSet(masks, (4, 4), "given"), truth)
    assert table.tolist() == [[4 / 16, 8 / 12], [4 / 8, 0]]


def test_shares_are_means_over_groups() -> None:
    tallies = Tallies()
    thing, stuff = (int(np.flatnonzero(chosen)[0]) for chosen in (IS_THING, ~IS_THING))
    tallies.add("row", [1, 0, 1], [thing, thing, stuff])
    tallies.add("empty", [], [])
    shares = tallies.shares()
    assert shares["row"]["things"] == 50.0
    assert shares["row"]["stuff"] == 100.0
    assert shares["row"]["all"] == pytest.approx(200 / 3)
    assert shares["empty"] == {}


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


def test_few_exemplars_are_the_largest_of_different_pictures(world: World, tmp_path: Path) -> None:
    database = Database.open(world.database_path("a"))
    assert with_exemplars(database, tmp_path / "all.retdb", None) is database
    few = with_exemplars(database, tmp_path / "few.retdb", 1)
    unseen = {category.name for category, seen in zip(VOCABULARY, SEEN, strict=True) if not seen}
    stored, left = ([segment for _, _, segment in index.iter_segments()] for index in (database, few))
    ids = [{s.segment_id for s in segments if s.label not in unseen} for segments in (stored, left)]
    assert ids[0] == ids[1]
    for name in unseen & {segment.label for segment in stored}:
        largest = max(segment.area for segment in stored if segment.label == name)
        assert [segment.area for segment in left if segment.label == name] == [largest]
    own = [replace(stored[0], segment_id=n, area=area, image_id=f"{n // 2}") for n, area in enumerate((5, 9, 7, 8))]
    assert [segment.segment_id for segment in surplus(own, 2)] == [0, 2]
    assert len(surplus(own, 3)) == 2, "there are two pictures"


def test_figures_of_few_exemplars_are_percent_by_class() -> None:
    found = figures([random_counts(1), random_counts(2)])
    assert set(found["pq"]) == set(GROUPS)
    assert len(found["pq_of_classes"]) == int((~SEEN).sum())
    assert all(0 <= value <= 100 for value in found["pq_of_classes"].values())
