from __future__ import annotations

from pathlib import Path

import pytest

from retclip.cli.tune import parse_grid
from retclip.core.errors import InputError
from retclip.presets import load_preset
from tests.cli.conftest import Run


def test_a_sweep_prints_the_curve_and_writes_a_preset(run: Run, home: Path, preset: Path, tmp_path: Path):
    out = tmp_path / "tuned.toml"
    done = run("tune", "--db", "pets", "--preset", preset, "--try", "retrieval.k=1,3", "--try",
               "retrieval.transform=none,centre", "--out", out, "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["tried"] == 4
    assert [(p["setting"], p["value"]) for p in done.json["curve"]] == [
        ("retrieval.k", "1"),
        ("retrieval.k", "3"),
        ("retrieval.transform", "none"),
        ("retrieval.transform", "centre"),
    ]
    assert done.json["best"][0]["stored"] == max(b["stored"] for b in done.json["best"]) == 100.0
    # Untrained weights and one expert: there is nothing to say of absent classes.
    assert done.json["best"][0]["absent"] is None
    written = load_preset(str(out))
    assert written.retrieval.k == done.json["preset"]["retrieval"]["k"]
    assert out.read_text().startswith("# Tuned on pets@")


def test_a_fitted_reliability_is_written(run: Run, home: Path, preset: Path, tmp_path: Path):
    out = tmp_path / "tuned.toml"
    words = ["tune", "--db", "pets", "--preset", preset, "--try", "fusion.reliability=fitted", "--out", out, "--json"]
    assert run(*words).code == 0
    assert len(load_preset(str(out)).fusion.reliability) == 2


def test_grids_are_checked(run: Run, home: Path):
    assert parse_grid(["fusion.gamma=0, .3"]) == {"fusion.gamma": ["0", "0.3"]}
    with pytest.raises(InputError, match="E143"):
        parse_grid(["fusion.gamma"])
    refused = run("tune", "--db", "pets", "--try", "fusion.gamma=2", "--json")
    assert refused.error["code"] == "E144"
    lost = run("tune", "--db", "pets", "--observations", home, "--json")
    assert lost.error["code"] == "E167"
