"""Open Images V4 to V7: photos with verified labels, boxes and masks of the classes people look for most.

Trees are recognised as published, as FiftyOne and as Datumaro (CVAT) write them, see `openimages_layout`. Labels are
those that people verified; what they verified to be absent is kept as such. Boxes are normalised in the order XMin,
XMax, YMin, YMax and refer to the pixels as stored. Format: https://storage.googleapis.com/openimages/web/
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from retclip.core.errors import InputError, require
from retclip.core.rle import mask_box
from retclip.corpora.annotations import missing_files, rectangle
from retclip.corpora.openimages_ids import read_image_ids
from retclip.corpora.openimages_layout import find_tree, missing_table, photo_ids
from retclip.corpora.openimages_masks import MaskStore
from retclip.corpora.openimages_tables import (
    BoxTable,
    Credit,
    Mask,
    read_class_names,
    read_credits,
    read_labels,
    read_masks,
)
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region, RegionKind

_UNKNOWN = Credit("CC BY 2.0", "")


class OpenImagesCorpus:
    """Photos of Open Images that are on disk; labels are machine ids (`/m/01g317`), names those of the release.

    Label tables are read when the corpus is opened, tables of boxes and masks when the first region is asked for. In
    a tree without label tables the classes of boxes and masks are the labels.

    Args:
        root: folder that holds photos and tables.
        split: `train`, `validation` or `val`, `test`, `challenge2018`; None takes train, or else the only split.
        machine_labels: labels by a machine count from this confidence on; None takes none.
        image_ids: list of the photos to take (downloader.py, FiftyOne); None takes all.

    Raises:
        InputError: E103 if the split or a table is missing (with its address), E101 if there is no photo, E105 for a
            damaged table, E106 if no photo is in the tables.
    """

    name = "openimages"

    def __init__(
        self,
        root: Path,
        split: str | None = None,
        machine_labels: float | None = None,
        image_ids: Path | None = None,
    ) -> None:
        require(machine_labels is None or 0 < machine_labels <= 1, "machine_labels", "in (0, 1]", machine_labels)
        self._tree = find_tree(root, split)
        self.split = self._tree.split
        self._classes = read_class_names(self._tree.needs("classes"))
        self._photos, self._others = photo_ids(self._tree.photos)
        self._asked: list[str] = []
        if image_ids is not None:
            self._restrict(image_ids)
        tables = self._tree.tables
        self._lacks_machine = machine_labels is not None and not tables["machine"]
        files = (*tables["labels"], *(tables["machine"] if machine_labels is not None else ()))
        if not files and not tables["boxes"] and not tables["masks"]:
            raise missing_table(root, "labels", self.split)
        self._labels = read_labels(files, self._photos, machine_labels) if files else self._region_labels()
        self._credits = read_credits(tables["images"], self._photos)
        self._unlabelled = [image_id for image_id in self._photos if image_id not in self._labels]
        if not self._labels:
            raise InputError(
                "E106",
                f"No label information: {len(self._photos):,} images, none of them is in the tables.",
                why=f"Read {', '.join(path.name for path in files or (*tables['boxes'], *tables['masks']))}.",
                fix="Download the tables of the split that the photos belong to.",
            )

    def _restrict(self, image_ids: Path) -> None:
        wanted = read_image_ids(image_ids)
        self._asked = sorted(image_id for image_id in wanted if image_id not in self._photos)
        self._photos = {image_id: name for image_id, name in self._photos.items() if image_id in wanted}
        if not self._photos:
            raise InputError(
                "E101",
                f"No images under {self._tree.photos} that {image_ids.name} lists.",
                why=f"The list has {len(wanted):,} ids.",
                fix="Fetch them, or check --split.",
            )

    def _region_labels(self) -> dict[str, list[ImageLabel]]:
        shared = {name: ImageLabel(name, "human", 1.0, True) for name in self._classes}
        found = {}
        for image_id in self._photos:
            names = [box.label for box in self._boxes.boxes(image_id)] if self._tree.tables["boxes"] else []
            names += [mask.label for mask in self._masks.get(image_id, ())] if self._tree.tables["masks"] else []
            if names:
                found[image_id] = [shared[name] for name in names]
        return found

    @property
    def classes(self) -> tuple[CorpusClass, ...]:
        """Classes in the order of the class table; most have labels only, 600 have boxes and 350 masks."""
        return tuple(self._classes.values())

    def size(self) -> int:
        """Pictures that `images` gives."""
        return len(self._photos)

    def images(self) -> Iterator[CorpusImage]:
        """Photos on disk in the order of their ids; a person's statement goes before a machine's."""
        for image_id, name in self._photos.items():
            ranked = sorted(self._labels.get(image_id, ()), key=lambda label: label.source != "human")
            labels: dict[str, ImageLabel] = {}
            for label in ranked:
                labels.setdefault(label.name, label)
            credit = self._credits.get(image_id, _UNKNOWN)
            yield CorpusImage(
                source=self.name,
                image_id=image_id,
                path=self._tree.photos / name,
                split=self.split,
                labels=tuple(labels.values()),
                license=credit.license,
                attribution=credit.attribution,
            )

    def regions(self, image: CorpusImage, size: tuple[int, int], kind: RegionKind) -> list[Region]:
        """Regions of one photo, see `Corpus.regions`; masks without a pixel are left out.

        Depictions are left out, and groups of things; a group of a stuff class is a region marked as crowd.

        Raises:
            InputError: E103 where the tree has no table of boxes or masks, with its address.
            ImageError: E116 for a mask image that is not on disk.
        """
        if kind == "boxes":
            return self._box_regions(image, size)
        regions = []
        for mask in self._masks.get(image.image_id, ()):
            pixels = self._store.read(mask.name, size)
            if pixels.any():
                x0, y0, x1, y1 = mask_box(pixels)
                box = (float(x0), float(y0), float(x1), float(y1))
                known, source = self._classes[mask.label], "openimages.segmentation"
                regions.append(Region(known.raw, (), known.is_thing, pixels, box, False, source, source))
        return regions

    def warnings(self) -> list[str]:
        """Photos without any statement, listed photos that are not there, files that are no photos, missing tables."""
        others = [f"{self._others:,} photos are left out: they are not called <image id>.jpg"] if self._others else []
        return [
            *missing_files("photos are in no table and have no labels", self._unlabelled),
            *missing_files("listed photos are not on disk and are left out", self._asked),
            *others,
            *(["There is no table of machine labels; only those in other tables count"] if self._lacks_machine else []),
        ]

    def _box_regions(self, image: CorpusImage, size: tuple[int, int]) -> list[Region]:
        height, width = size
        regions = []
        for found in self._boxes.boxes(image.image_id):
            x0, y0, x1, y1 = found.corners
            box, filled = rectangle(str(image.path), (x0 * width, y0 * height, x1 * width, y1 * height), size)
            source = f"openimages.{found.source}"
            known = self._classes[found.label]
            regions.append(Region(known.raw, (), known.is_thing, filled, box, found.is_group, source, "box"))
        return regions

    @cached_property
    def _boxes(self) -> BoxTable:
        return BoxTable(self._tree.needs("boxes"), self._photos, self._classes)

    @cached_property
    def _masks(self) -> dict[str, list[Mask]]:
        return read_masks(self._tree.needs("masks"), self._photos, self._classes)

    @cached_property
    def _store(self) -> MaskStore:
        return MaskStore(self._tree.masks)
