"""A run that was kept: what the networks said of every picture, what was asked, and which labels that gave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retclip.core.errors import InputError
from retclip.core.files import write_json
from retclip.core.identity import FeatureSpace
from retclip.core.vocabulary import Category, Vocabulary
from retclip.presets import Preset, preset_from_mapping, preset_to_mapping
from retclip.query.kept_nearby import NearbyStore
from retclip.query.kept_texts import KeptTexts
from retclip.query.observations import ObservationStore
from retclip.query.question import TrainedHead

FOLDER = "kept"
_SCHEMA = "retclip.kept/1"
_NETWORKS = ("encoder", "detector", "masker", "index", "proposals")


@dataclass(frozen=True)
class RunFacts:
    """What was asked of which databases by which networks.

    Attributes:
        databases: folders, the most important first.
        layering: what happened to a class that several of them know.
        space: what made the keys.
        preset: all settings.
        vocabulary: classes as the list gave them; listed: False = every class of the database was asked.
        head: the trained head, None without one.
        formats: files that were written for every picture.
    """

    databases: tuple[Path, ...]
    layering: Literal["first", "merged"]
    space: FeatureSpace
    preset: Preset
    vocabulary: Vocabulary
    listed: bool
    head: TrainedHead | None
    formats: tuple[str, ...]

    def identity(self, masks: Path | None) -> Mapping[str, Any]:
        """What observations depend on; `masks` is the folder of given proposals."""
        preset = preset_to_mapping(self.preset)
        return {
            "schema": "retclip.observations/1",
            "feature_space": self.space.fingerprint,
            **{name: preset[name] for name in _NETWORKS},
            "masks": masks and str(masks.resolve()),
            "head": self.head and self.head.weights_sha256,
            "vocabulary": [list(category.names) for category in self.vocabulary],
        }

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "schema": _SCHEMA,
            "databases": [str(path) for path in self.databases],
            "layering": self.layering,
            "space": self.space.to_json(),
            "preset": preset_to_mapping(self.preset),
            "vocabulary": asdict(self.vocabulary),
            "listed": self.listed,
            "head": self.head
            and {"names": sorted(self.head.training_names), "weights_sha256": self.head.weights_sha256},
            "formats": list(self.formats),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunFacts:
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for anything else."""
        if data["schema"] != _SCHEMA:
            raise ValueError(f"schema {data['schema']!r}, not {_SCHEMA}")
        classes = (
            Category(c["id"], tuple(c["names"]), c["is_thing"], c["kind_stated"])
            for c in data["vocabulary"]["categories"]
        )
        head = data["head"]
        return cls(
            tuple(map(Path, data["databases"])),
            data["layering"],
            FeatureSpace.from_json(data["space"]),
            preset_from_mapping(data["preset"], "the kept run"),
            Vocabulary(data["vocabulary"]["name"], tuple(classes)),
            data["listed"],
            head and TrainedHead(frozenset(head["names"]), head["weights_sha256"]),
            tuple(data["formats"]),
        )


@dataclass(frozen=True)
class PictureRecord:
    """How a picture is labelled.

    Attributes:
        name: of the file as the user gave it; path: the same, absolute; sha256: digest of its bytes.
        verdict: digest of all that its map depends on beside the masks.
        outcome: digest of its map with the classes of its segments.
        labels: class of every proposal that holds pixels, by row.
    """

    name: str
    path: str
    sha256: str
    verdict: str
    outcome: str
    labels: Mapping[int, str]


class KeptRun:
    """The folder `kept` beside the results of a run.

    Args:
        folder: of the results.
        facts: what the run is.
        texts: rows of its text tower, None without one.
    """

    def __init__(self, folder: Path, facts: RunFacts, texts: KeptTexts | None) -> None:
        self.facts, self.texts, self._folder = facts, texts, folder / FOLDER
        self.records: dict[str, PictureRecord] = {}

    @classmethod
    def create(cls, folder: Path, facts: RunFacts, texts: KeptTexts | None, masks: Path | None) -> KeptRun:
        """Start or continue to keep a run. Raises InputError E165 when the folder holds observations of another one."""
        kept = cls(folder, facts, texts)
        ObservationStore(kept._observations, facts.identity(masks))
        if (kept._folder / "labels.json").is_file():
            kept.records = kept._load_records()
        write_json(kept._folder / "run.json", facts.to_json())
        if texts is not None:
            texts.save(kept._texts)
        return kept

    @classmethod
    def open(cls, folder: Path) -> KeptRun:
        """A kept run. Raises InputError E340 when there is none, or a damaged one."""
        path = folder / FOLDER / "run.json"
        try:
            facts = RunFacts.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, InputError) as error:
            raise _unreadable(path, error) from error
        kept = cls(folder, facts, None)
        if kept._texts.is_file():
            kept.texts = KeptTexts.load(kept._texts, facts.space)
        kept.records = kept._load_records()
        return kept

    @cached_property
    def store(self) -> ObservationStore:
        """What the networks said, by the name of the picture; logits to the bit, as results must be the same."""
        identity = json.loads((self._observations / "identity.json").read_bytes())
        return ObservationStore(self._observations, identity, np.float32)

    @cached_property
    def nearby(self) -> NearbyStore:
        """What was near the proposals of every picture."""
        return NearbyStore(self._folder / "nearby")

    def save_records(self) -> None:
        """Write the labels of all pictures."""
        write_json(self._folder / "labels.json", {name: asdict(record) for name, record in self.records.items()})

    @property
    def _observations(self) -> Path:
        return self._folder / "observations"

    @property
    def _texts(self) -> Path:
        return self._folder / "texts.safetensors"

    def _load_records(self) -> dict[str, PictureRecord]:
        path = self._folder / "labels.json"
        try:
            records = json.loads(path.read_bytes())
            return {
                name: PictureRecord(**{**entry, "labels": {int(row): label for row, label in entry["labels"].items()}})
                for name, entry in records.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(path, error) from error


def refuse_other_networks(kept: Preset, asked: Preset) -> None:
    """Raise InputError E342 when a setting changed that decides what the networks see."""
    mine, other = preset_to_mapping(kept), preset_to_mapping(asked)
    if changed := [name for name in _NETWORKS if mine[name] != other[name]]:
        raise InputError(
            "E342",
            f"These settings need the networks: {', '.join(changed)}.",
            why="What is kept was observed with others; only retrieval, fusion and merge can change without them.",
            fix="Run retclip segment with --keep and another --out.",
        )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        "E340",
        f"There is no kept run at {path.parent.parent}.",
        why=f"{path.name}: {type(error).__name__}: {error}",
        fix="Run retclip segment with --keep, and name its --out folder.",
    )
