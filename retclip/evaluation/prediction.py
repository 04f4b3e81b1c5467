"""What is scored: a panoptic map, a semantic map and instances, made here or read from another program's files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError
from retclip.core.images import read_annotation
from retclip.core.panoptic import rgb_to_ids
from retclip.core.results import Instances
from retclip.core.vocabulary import Vocabulary, normalise_name
from retclip.corpora.annotations import file_names, read_json
from retclip.evaluation.panoptic_quality import MapSegment
from retclip.evaluation.truth import EvaluationSet, TruthImage, TruthMap


@dataclass(frozen=True)
class Prediction:
    """One predicted picture.

    Attributes:
        ids: (H, W) segment ids, 0 = unlabelled; segments: the ids of that map; scores: one per segment, in [0, 1].
        semantic: (H, W) int32 column of the vocabulary, -1 where nothing is predicted.
        instances: overlapping things, best first.
        origin: file or program it came from, for errors.
    """

    ids: npt.NDArray[np.int32]
    segments: tuple[MapSegment, ...]
    scores: tuple[float, ...]
    semantic: npt.NDArray[np.int32]
    instances: Instances
    origin: str


class PredictedFolder:
    """Panoptic predictions of any program: a folder with one COCO panoptic JSON and its id maps.

    The maps lie beside the JSON or in a folder of its name. Semantic map and instances are read off the panoptic map;
    a segment without `score` counts with 1.

    Raises:
        InputError: E163 naming the file and why it cannot be used.
    """

    def __init__(self, folder: Path, dataset: EvaluationSet) -> None:
        self.path = _only_json(folder)
        content = read_json(self.path)
        self._vocabulary = dataset.vocabulary
        try:
            _check_categories(self.path, content.get("categories", ()), dataset.vocabulary)
            self._entries = {str(entry["image_id"]): entry for entry in content["annotations"]}
            names = Counter(str(entry["file_name"]) for entry in content["annotations"])
            self._check_entries(dataset)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise _unusable(
                self.path, why, "Write COCO panoptic JSON: annotations with image_id, file_name, segments_info."
            ) from error
        shared = [name for name, count in names.items() if count > 1]
        if shared:
            raise _unusable(self.path, f"Map {shared[0]} belongs to several images.", "Give every image its own map.")
        self._maps = folder / self.path.stem if (folder / self.path.stem).is_dir() else folder
        self._names = file_names(self._maps)

    def _check_entries(self, dataset: EvaluationSet) -> None:
        missing = [image.image_id for image in dataset.images if image.image_id not in self._entries]
        if missing:
            why = f"{len(missing):,} of {len(dataset.images):,} images have no entry, first {missing[0]}."
            raise _unusable(self.path, why, "Predict every image; use --subset to score a part.")
        known = {category.id for category in self._vocabulary}
        for image_id, entry in self._entries.items():
            ids = Counter(int(segment["id"]) for segment in entry["segments_info"])
            strange = {int(segment["category_id"]) for segment in entry["segments_info"]} - known
            doubled = [number for number, count in ids.items() if count > 1]
            if strange:
                why = f"Image {image_id} has categories {sorted(strange)[:5]}, which {dataset.name} does not have."
                raise _unusable(self.path, why, "Write category ids of the evaluation set.")
            if doubled:
                raise _unusable(
                    self.path, f"Image {image_id} lists segment id {doubled[0]} twice.", "Number segments uniquely."
                )

    def predict(self, image: TruthImage, truth: TruthMap) -> Prediction:
        """Read one picture's prediction; the truth tells the size it must have."""
        entry = self._entries[image.image_id]
        name = str(entry["file_name"])
        path = self._maps / name
        if name not in self._names:
            raise _unusable(path, f"{self.path.name} names it, but it is not there.", "Write the map.")
        values = read_annotation(path)
        if values.ndim != 3:
            raise _unusable(path, "It has no colours; ids are coded as R + 256 G + 65536 B.", "Write RGB PNGs.")
        if values.shape[:2] != truth.ids.shape:
            why = f"It has {values.shape[:2]} pixels (height, width), the truth {truth.ids.shape}."
            raise _unusable(path, why, "Write maps at the size of the photo.")
        return self._from_map(rgb_to_ids(values.astype(np.uint8)), entry, str(path))

    def _from_map(self, ids: npt.NDArray[np.int32], entry: Mapping[str, Any], origin: str) -> Prediction:
        infos = entry["segments_info"]
        segments = tuple(MapSegment(int(info["id"]), int(info["category_id"])) for info in infos)
        scores = tuple(min(1.0, max(0.0, float(info.get("score", 1.0)))) for info in infos)
        semantic = paint_columns(ids, segments, self._vocabulary)
        return Prediction(
            ids, segments, scores, semantic, read_instances(ids, segments, scores, self._vocabulary), origin
        )


def paint_columns(
    ids: npt.NDArray[np.int32], segments: tuple[MapSegment, ...], vocabulary: Vocabulary
) -> npt.NDArray[np.int32]:
    """(H, W) int32 column of the segment over every pixel, -1 over none."""
    column = {category.id: number for number, category in enumerate(vocabulary)}
    labels = {segment.id: column[segment.category_id] for segment in segments}
    present, places = np.unique(ids, return_inverse=True)
    table = np.array([labels.get(value, -1) for value in present.tolist()], np.int32)
    return table[places].reshape(ids.shape)


def read_instances(
    ids: npt.NDArray[np.int32], segments: tuple[MapSegment, ...], scores: tuple[float, ...], vocabulary: Vocabulary
) -> Instances:
    """The things of a panoptic map, best first."""
    things = {category.id for category in vocabulary if category.is_thing}
    chosen = [(score, s) for score, s in zip(scores, segments, strict=True) if s.category_id in things]
    chosen.sort(key=lambda pair: -pair[0])
    masks = np.stack([ids == s.id for _, s in chosen]) if chosen else np.zeros((0, *ids.shape), np.bool_)
    categories = np.array([s.category_id for _, s in chosen], np.int64)
    return Instances(masks, categories, np.array([score for score, _ in chosen], np.float32))


def _only_json(folder: Path) -> Path:
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    preferred = [path for path in found if path.stem == "panoptic"] or found
    if len(preferred) != 1:
        why = f"Found {', '.join(path.name for path in found) or 'none'}."
        raise InputError("E163", f"{folder} needs one JSON file of predictions.", why=why, fix="Name it panoptic.json.")
    return preferred[0]


def _check_categories(path: Path, listed: list[Mapping[str, Any]], vocabulary: Vocabulary) -> None:
    known = {category.id: category for category in vocabulary}
    for entry in listed:
        category = known.get(int(entry["id"]))
        if category is None:
            continue
        if normalise_name(str(entry["name"])) not in {normalise_name(name) for name in category.names}:
            why = f"Category {category.id} is '{entry['name']}' there and '{category.name}' in the evaluation set."
            raise _unusable(path, why, "Write category ids of the evaluation set.")


def _unusable(path: Path, why: str, fix: str) -> InputError:
    return InputError("E163", f"Cannot score the predictions in {path}.", why=why, fix=fix)
