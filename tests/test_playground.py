"""Segmentation with the networks of the package must not get worse: a slice of benchmarks/playground."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.playground.slice import PICTURES, ROWS, SCENES, slice_figures, slice_world
from benchmarks.playground.world import run_identity
from retclip.presets import load_preset

COMMITTED = Path(__file__).parent / "data" / "playground_slice.json"


def test_quality_has_not_fallen(tmp_path: Path) -> None:
    committed = json.loads(COMMITTED.read_text(encoding="utf-8"))
    preset = load_preset("tiny")
    _, networks = run_identity(preset, SCENES, PICTURES)
    assert networks == committed["networks"], f"other weights: {committed['command']}"
    figures = slice_figures(slice_world(tmp_path, preset))
    assert set(figures) == set(ROWS)
    for row, groups in figures.items():
        for group, value in groups.items():
            least = committed["pq"][row][group] - committed["noise"][row][group]
            assert least > 0
            assert value >= least, f"PQ of {group} classes, {row}: {value} is below {least:.2f}; {committed['command']}"
