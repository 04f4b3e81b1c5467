"""The ground of the benchmark: for every seed its own scenes of both domains, and databases of annotated masks."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from retclip.adapters.model_files import model_records, obtain_models
from retclip.assembly import make_index_models
from retclip.corpora import open_corpus
from retclip.corpora.playground import SceneSettings
from retclip.corpora.playground.export import write_coco
from retclip.corpora.playground.scenes import Domain
from retclip.evaluation.datasets import load_seen_classes, open_evaluation_set
from retclip.evaluation.truth import EvaluationSet
from retclip.indexer.build import build
from retclip.indexer.plan import BuildRequest
from retclip.presets import Preset, preset_to_mapping
from retclip.shards import Database
from retclip.vocabularies import load_vocabulary

DatabaseName = Literal["a", "b", "a-half"]
Split = Literal["train", "val"]
Chosen = npt.NDArray[np.bool_]

DATABASES: dict[DatabaseName, Domain] = {"a": "a", "b": "b", "a-half": "a"}
SCENES: tuple[tuple[Domain, Split], ...] = (("a", "train"), ("b", "train"), ("a", "val"), ("web", "val"))
VOCABULARY = load_vocabulary("@playground")
SEEN: Chosen = np.isin(np.arange(len(VOCABULARY)), sorted(load_seen_classes("playground_seen", VOCABULARY)))
GROUPS: dict[str, Chosen] = {"all": np.ones_like(SEEN), "seen": SEEN, "unseen": ~SEEN}
IS_THING: Chosen = np.array([category.is_thing for category in VOCABULARY])


def _every_second() -> Chosen:
    """(C,) bool: half of the seen things, of the unseen things, of the seen stuff and of the unseen stuff."""
    kinds: defaultdict[tuple[bool, bool], list[int]] = defaultdict(list)
    for column, kind in enumerate(zip(IS_THING.tolist(), SEEN.tolist(), strict=True)):
        kinds[kind].append(column)
    return np.isin(np.arange(len(VOCABULARY)), [column for columns in kinds.values() for column in columns[::2]])


# What the database `a-half` holds; the other classes are absent from it.
STORED: Chosen = _every_second()
HALVES: dict[str, Chosen] = {"stored": STORED, "absent": ~STORED}


@dataclass(frozen=True)
class World:
    """What one seed draws; the networks were trained on scenes of seed 0, so any other shares none with them.

    Attributes:
        folder: of everything that belongs to this seed.
        preset: with the networks under test.
        seed: of all scenes.
        scenes: pictures that teach a database.
        pictures: pictures that ask.
    """

    folder: Path
    preset: Preset
    seed: int
    scenes: int
    pictures: int

    def make(self) -> None:
        """Draw all scenes and build all databases that are not there yet."""
        for domain, split in SCENES:
            self.draw(domain, split)
        for name in DATABASES:
            self.build(name)

    def draw(self, domain: Domain, split: Split) -> None:
        """Draw the scenes of a split that are not there yet."""
        root = self.folder / domain
        # The captions are written last.
        if not (root / "annotations" / f"captions_{split}2017.json").is_file():
            count = self.scenes if split == "train" else self.pictures
            write_coco(root, split, SceneSettings.of(domain, seed=self.seed), count)

    def build(self, name: DatabaseName) -> None:
        """Build a database of drawn scenes unless it is there; an interrupted build goes on."""
        path = self.database_path(name)
        if path.is_dir() and len(Database.open(path)):
            return
        corpus = open_corpus("coco", self.folder / DATABASES[name], "train")
        models = make_index_models(self.preset, corpus, "masks", "cpu")
        wanted = None
        if name == "a-half":
            stored = tuple(category for category, kept in zip(VOCABULARY, STORED, strict=True) if kept)
            wanted = replace(VOCABULARY, categories=stored)
        if not path.is_dir():
            Database.create(path, models.encoder.space, preset_to_mapping(self.preset))
        request = BuildRequest(corpus, models.source, vocabulary=wanted, thumbnails=0, models=models.records())
        build(Database.open(path), request, models.encoder, "build")

    def database_path(self, name: DatabaseName) -> Path:
        """Where a database lies."""
        return self.folder / f"{name}.retdb"

    def pictures_of(self, domain: Domain) -> EvaluationSet:
        """The annotated pictures that ask."""
        return open_evaluation_set("playground", self.folder / domain, "val")


def run_identity(preset: Preset, scenes: int, pictures: int) -> tuple[str, list[dict[str, str]]]:
    """Name of a run's folder, another one for other weights, settings or sizes, and the networks with their digests."""
    records = model_records(obtain_models(preset, ("encoder", "detector", "masker")))
    facts = [preset_to_mapping(preset), [record["sha256"] for record in records], scenes, pictures]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12], records
