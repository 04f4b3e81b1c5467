"""COCO panoptic annotations: a JSON file, a folder of id images, and a folder of photos.

```
annotations/panoptic_train2017.json
annotations/panoptic_train2017/*.png   or  panoptic_train2017/*.png
train2017/*.jpg                        or  images/train2017/*.jpg
annotations/captions_train2017.json    if present
```
Crowd segments are kept and marked. JSON cannot be streamed: segments become small tuples while it is parsed.
Format: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from retclip.core.errors import InputError
from retclip.core.images import read_annotation
from retclip.core.panoptic import rgb_to_ids
from retclip.core.vocabulary import normalise_name
from retclip.corpora.annotations import check_size, file_names, misfit, missing_files, read_json, rectangle
from retclip.corpora.coco_listing import NAME, choose_split, first_folder, list_images, read_captions
from retclip.ports.corpora import CorpusClass, CorpusImage, Region, RegionKind

_SUFFIXES = ("-merged", "-other", "-stuff")


class _Segment(NamedTuple):
    id: int
    category_id: int
    box: tuple[float, float, float, float]
    is_crowd: bool


class _Photo(NamedTuple):
    image: CorpusImage
    map_name: str
    segments: tuple[_Segment, ...]


class CocoCorpus:
    """Photos with COCO panoptic annotations; labels are category names as COCO spells them.

    Args:
        root: folder that holds `annotations/`.
        split: `train2017`, or `train` for the only split that starts so; None takes train, or else the only split.

    Raises:
        InputError: E103 if the split, its photos or a readable annotation file is missing, E101 if no listed photo is
            on disk.
    """

    name = NAME

    def __init__(self, root: Path, split: str | None = None) -> None:
        annotations = root / "annotations"
        self.split = choose_split(annotations, ("panoptic",), split)
        path = annotations / f"panoptic_{self.split}.json"
        photos = first_folder(root / self.split, root / "images" / self.split)
        self._maps = first_folder(annotations / f"panoptic_{self.split}", root / f"panoptic_{self.split}")
        content = read_json(path, _compact)
        try:
            self._classes = map_classes(
                (int(c["id"]), str(c["name"]), bool(c["isthing"])) for c in content["categories"]
            )
            sentences = read_captions(annotations / f"captions_{self.split}.json")
            listed = list(_photos(content, self.split, photos, self._classes, sentences))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                "E103",
                f"{path} is not a COCO panoptic annotation file.",
                why=f"{type(error).__name__}: {error}",
                fix="Use panoptic_*.json of panoptic_annotations_trainval2017.zip, not instances_*.json.",
            ) from error
        present, self._map_names = file_names(photos), file_names(self._maps)
        self._photos = {p.image.image_id: p for p in listed if p.image.path.name in present}
        self._missing = [p.image.path.name for p in listed if p.image.path.name not in present]
        self._missing_maps = [
            p.map_name for p in self._photos.values() if p.segments and p.map_name not in self._map_names
        ]
        if not self._photos:
            raise InputError(
                "E101",
                f"No images under {photos}.",
                why=f"None of the {len(listed):,} photos that {path.name} lists is there.",
                fix=f"Put the photos of {self.split} into this folder.",
            )

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """The categories of the annotation file; suffixes such as `-other-merged` are stripped from stuff names."""
        return tuple(self._classes.values())

    def size(self) -> int:
        """Pictures that `images` gives."""
        return len(self._photos)

    def images(self) -> Iterator[CorpusImage]:
        """Photos on disk in the order of their ids."""
        for photo in self._photos.values():
            yield photo.image

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """All segments of a photo, crowds included; see `Corpus.regions`. A box is the annotated one, clipped."""
        photo = self._photos[image.image_id]
        if kind == "boxes":
            masked = [(s, *rectangle(str(image.path), s.box, size), "box") for s in photo.segments]
        else:
            masked = [(s, s.box, mask, "coco.panoptic") for s, mask in self._masks(photo, size)]
        regions = []
        for segment, box, mask, source in masked:
            known = self._classes[segment.category_id]
            regions.append(
                Region(known.raw, known.aliases, known.is_thing, mask, box, segment.is_crowd, "coco.panoptic", source)
            )
        return regions

    def _masks(self, photo: _Photo, size: tuple[int, int]) -> list[tuple[_Segment, npt.NDArray[np.bool_]]]:
        if not photo.segments:
            return []
        name = str(photo.image.path)
        if photo.map_name not in self._map_names:
            raise misfit(name, f"{photo.map_name} is not in {self._maps}.")
        colours = read_annotation(self._maps / photo.map_name)
        check_size(name, colours.shape[:2], size)
        if colours.ndim != 3:
            raise misfit(name, f"{photo.map_name} has no colours; ids are coded as R + 256 G + 65536 B.")
        ids = rgb_to_ids(colours.astype(np.uint8))
        strays = (set(np.unique(ids).tolist()) - {0}) ^ {segment.id for segment in photo.segments}
        if strays:
            raise misfit(name, f"Segment ids {sorted(strays)[:5]} are only in the JSON or only in {photo.map_name}.")
        return [(segment, ids == segment.id) for segment in photo.segments]

    def warnings(self) -> list[str]:
        """Photos that are listed but missing, and photos whose id image is missing."""
        return [
            *missing_files("listed photos are not on disk and are left out", self._missing),
            *missing_files("photos have no mask image; their masks cannot be used", self._missing_maps),
        ]


def map_classes(categories: Iterable[tuple[int, str, bool]]) -> dict[int, CorpusClass]:
    """Names to show for COCO's categories.

    Args:
        categories: (id, name, is_thing) as in the annotation file.

    Returns:
        Id -> class. Stuff loses the suffixes `-merged`, `-other` and `-stuff` unless two classes would then share a
        name; the full name stays as an alias.
    """
    listed = list(categories)
    shown = {number: raw if is_thing else _strip(raw) for number, raw, is_thing in listed}
    uses = Counter(normalise_name(name) for name in shown.values())
    classes = {}
    for number, raw, is_thing in listed:
        name = shown[number] if uses[normalise_name(shown[number])] == 1 else raw
        classes[number] = CorpusClass(raw, name, () if name == raw else (raw,), is_thing)
    return classes


def _strip(raw: str) -> str:
    name = raw
    while name.endswith(_SUFFIXES):
        name = name[: name.rindex("-")]
    return name


def _compact(item: dict[str, Any]) -> dict[str, Any] | _Segment:
    if "iscrowd" not in item or "segmentation" in item:
        return item
    x, y, width, height = map(float, item["bbox"])
    return _Segment(int(item["id"]), int(item["category_id"]), (x, y, x + width, y + height), bool(item["iscrowd"]))


def _photos(
    content: Mapping[str, Any],
    split: str,
    folder: Path,
    classes: Mapping[int, CorpusClass],
    sentences: Mapping[str, list[str]],
) -> Iterator[_Photo]:
    annotations = {str(entry["image_id"]): entry for entry in content["annotations"]}
    nothing: dict[str, Any] = {"file_name": "", "segments_info": ()}

    def labels(image_id: str) -> list[str]:
        return [classes[s.category_id].raw for s in annotations.get(image_id, nothing)["segments_info"]]

    for image in list_images(content, folder, split, labels, sentences):
        annotation = annotations.get(image.image_id, nothing)
        yield _Photo(image, str(annotation["file_name"]), tuple(annotation["segments_info"]))
