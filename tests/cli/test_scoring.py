"""What stored observations of an evaluation depend on."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from retclip.cli.scoring import _identity
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import Preset, load_preset

DATASET: Any = SimpleNamespace(
    name="made", split="val", sha256="0" * 64, vocabulary=Vocabulary("made", (Category(1, ("red",), True),))
)
DATABASE: Any = SimpleNamespace(space=SimpleNamespace(fingerprint="f"))


def identity(preset: Preset) -> Any:
    return _identity(DATASET, DATABASE, preset)


def test_detector_and_masker_count_where_they_make_the_proposals() -> None:
    found = load_preset("balanced")
    detector = replace(found, detector=replace(found.detector, model="IDEA-Research/grounding-dino-tiny"))
    masker = replace(found, masker=replace(found.masker, model="facebook/sam-vit-large"))
    assert len({repr(identity(preset)) for preset in (found, detector, masker)}) == 3
    grids = [preset.with_proposals("sam-grid") for preset in (found, detector, masker)]
    assert identity(grids[0]) == identity(grids[1]) != identity(grids[2])
    given = [preset.with_proposals("given") for preset in (found, detector, masker)]
    assert identity(given[0]) == identity(given[1]) == identity(given[2])


def test_what_only_weighs_does_not_count() -> None:
    found = load_preset("balanced")
    assert identity(found) == identity(replace(found, retrieval=replace(found.retrieval, k=1)))
