"""Annotated pictures to evaluate on: panoptic id maps with their JSON, or semantic label images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ImageError, InputError, require
from retclip.core.images import read_annotation
from retclip.core.panoptic import rgb_to_ids
from retclip.core.vocabulary import Category, Vocabulary, normalise_name
from retclip.corpora.annotations import file_names, read_json
from retclip.evaluation.panoptic_quality import MapSegment

UNLABELLED = -1


@dataclass(frozen=True)
class TruthImage:
    """One annotated picture: its id, the photo, its label image, and the segments that the JSON lists for it."""

    image_id: str
    path: Path
    map_path: Path
    segments: tuple[MapSegment, ...] = ()


@dataclass(frozen=True)
class TruthMap:
    """What is true of one picture.

    Attributes:
        ids: (H, W) int32 segment ids, 0 = void.
        segments: the ids of that map.
        semantic: (H, W) int32 column of the vocabulary, -1 where the truth says nothing.
    """

    ids: npt.NDArray[np.int32]
    segments: tuple[MapSegment, ...]
    semantic: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        require(self.ids.shape == self.semantic.shape, "TruthMap.semantic", str(self.ids.shape), self.semantic.shape)


@dataclass(frozen=True)
class EvaluationSet:
    """A named set of annotated pictures.

    Attributes:
        name, split: e.g. `coco-panoptic`, `val2017`.
        corpus: name under which a database would list the same collection as its source.
        vocabulary: the classes that are scored; column c of every table is class c.
        images: what is on disk, in a fixed order.
        columns: value of a semantic label image -> column; empty for panoptic sets, whose JSON names categories.
        sha256: digest of the annotation file, or of the list of label images.
        missing: photos that are listed but not on disk.
    """

    name: str
    split: str
    corpus: str
    vocabulary: Vocabulary
    images: tuple[TruthImage, ...]
    columns: Mapping[int, int]
    sha256: str
    missing: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["panoptic", "semantic"]:
        """`semantic` sets know no instances: only mean IoU is defined for them."""
        return "semantic" if self.columns else "panoptic"

    def truth(self, image: TruthImage) -> TruthMap:
        """Read the label image of one picture. Raises ImageError E111..E114, E116, InputError E162."""
        values = read_annotation(image.map_path)
        return self._semantic(image, values) if self.columns else self._panoptic(image, values)

    def _panoptic(self, image: TruthImage, values: npt.NDArray[np.integer]) -> TruthMap:
        if values.ndim != 3:
            why = "Ids are coded in colours, R + 256 G + 65536 B; this file has grey values."
            raise ImageError("E116", f"{image.map_path} is no panoptic map.", why=why, fix="Use the panoptic PNGs.")
        ids = rgb_to_ids(values.astype(np.uint8))
        column = {category.id: number for number, category in enumerate(self.vocabulary)}
        present, places = np.unique(ids, return_inverse=True)
        labels = {segment.id: column[segment.category_id] for segment in image.segments}
        table = np.array([labels.get(value, UNLABELLED) for value in present.tolist()], np.int32)
        return TruthMap(ids, image.segments, table[places].reshape(ids.shape))

    def _semantic(self, image: TruthImage, values: npt.NDArray[np.integer]) -> TruthMap:
        if values.ndim != 2:
            why = "Classes are palette or grey values; this file has colours."
            raise ImageError("E116", f"{image.map_path} is no label image.", why=why, fix="Use the class PNGs.")
        present, places = np.unique(values, return_inverse=True)
        table = np.array([self.columns.get(value, UNLABELLED) for value in present.tolist()], np.int32)
        semantic = table[places].reshape(values.shape)
        found = [column for column in table.tolist() if column != UNLABELLED]
        segments = tuple(MapSegment(column + 1, self.vocabulary[column].id) for column in sorted(found))
        return TruthMap(semantic + 1, segments, semantic)


@dataclass(frozen=True)
class PanopticFiles:
    """Where a panoptic set lies: annotation JSON, folder of id maps, and the photo of an entry's file name."""

    annotations: Path
    maps: Path
    photo: Callable[[str], Path]


def read_panoptic(
    name: str, split: str, corpus: str, files: PanopticFiles, synonyms: Vocabulary | None
) -> EvaluationSet:
    """Open a set in COCO panoptic format; photos that are not on disk are left out and listed in `missing`.

    Args:
        synonyms: a class list that knows further names of the categories.

    Raises:
        InputError: E103 for an unreadable file, E162 for one that is inconsistent or has no photo on disk.
    """
    content = read_json(files.annotations)
    try:
        vocabulary = _vocabulary(name, content["categories"], synonyms)
        names = {str(image["id"]): str(image["file_name"]) for image in content["images"]}
        listed = [_truth_image(entry, names, files, vocabulary) for entry in content["annotations"]]
    except (KeyError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise _unusable(files.annotations, why, "Use COCO panoptic JSON (panoptic_*.json).") from error
    except ValueError as error:
        raise _unusable(files.annotations, str(error), "Correct the file.") from error
    present = tuple(image for image in listed if image.path.is_file())
    if not present:
        where = listed[0].path.parent if listed else files.annotations.parent
        raise _unusable(files.annotations, f"None of its {len(listed):,} photos is in {where}.", "Put them there.")
    have = file_names(files.maps) if files.maps.is_dir() else frozenset()
    lost = [image.map_path.name for image in present if image.map_path.name not in have]
    if lost:
        raise _unusable(files.maps, f"{len(lost):,} id maps are missing, among them {lost[0]}.", "Unpack all of them.")
    missing = tuple(image.path.name for image in listed if not image.path.is_file())
    digest = hashlib.sha256(files.annotations.read_bytes()).hexdigest()
    return EvaluationSet(name, split, corpus, vocabulary, present, {}, digest, missing)


def read_semantic(
    name: str,
    split: str,
    corpus: str,
    pairs: Sequence[tuple[Path, Path]],
    vocabulary: Vocabulary,
    columns: Mapping[int, int],
) -> EvaluationSet:
    """A set of (photo, label image) pairs; every label value outside `columns` is ignored. Raises InputError E162."""
    present = [(photo, labels) for photo, labels in pairs if photo.is_file() and labels.is_file()]
    if not present:
        where = pairs[0][1].parent if pairs else Path()
        raise _unusable(where, f"None of its {len(pairs):,} photos and label images is on disk.", "Check --root.")
    images = tuple(TruthImage(photo.stem, photo, labels) for photo, labels in present)
    missing = tuple(photo.name for photo, labels in pairs if not (photo.is_file() and labels.is_file()))
    digest = hashlib.sha256("\n".join(image.image_id for image in images).encode()).hexdigest()
    return EvaluationSet(name, split, corpus, vocabulary, images, columns, digest, missing)


def _truth_image(
    entry: Mapping[str, Any], names: Mapping[str, str], files: PanopticFiles, vocabulary: Vocabulary
) -> TruthImage:
    known = {category.id for category in vocabulary}
    segments = tuple(
        MapSegment(int(s["id"]), int(s["category_id"]), bool(s.get("iscrowd", 0))) for s in entry["segments_info"]
    )
    strange = sorted({segment.category_id for segment in segments} - known)
    require(not strange, f"categories of image {entry['image_id']}", "those the file lists", strange[:5])
    image_id = str(entry["image_id"])
    # Names come from a file: only their last part is used, so that none points outside its folder.
    map_path = files.maps / Path(str(entry["file_name"])).name
    return TruthImage(image_id, files.photo(Path(names[image_id]).name), map_path, segments)


def _vocabulary(name: str, categories: Sequence[Mapping[str, Any]], synonyms: Vocabulary | None) -> Vocabulary:
    """The file's categories in its order, with the names a class list adds: by id where all ids agree, else by name."""
    known = [(int(c["id"]), str(c["name"]), bool(c["isthing"])) for c in categories]
    by_id = {category.id: category for category in synonyms or ()}
    if set(by_id) != {number for number, _, _ in known}:
        by_name = {normalise_name(text): category for category in synonyms or () for text in category.names}
        by_id = {number: by_name[key] for number, raw, _ in known if (key := normalise_name(raw)) in by_name}
    rows = []
    for number, raw, is_thing in known:
        more = by_id[number].names if number in by_id else ()
        rows.append(Category(number, tuple(dict.fromkeys((*more, raw))), is_thing))
    return Vocabulary(name, tuple(rows))


def _unusable(path: Path, why: str, fix: str) -> InputError:
    return InputError("E162", f"Cannot evaluate on {path}.", why=why, fix=fix)
