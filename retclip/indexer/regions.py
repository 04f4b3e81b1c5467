"""Where the regions of a labelled picture come from: its annotation, or a detector and a masker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch

from retclip.core.errors import InputError
from retclip.core.images import Picture
from retclip.ports.corpora import Corpus, CorpusClass, CorpusImage, Region, RegionKind
from retclip.ports.detection import Detector
from retclip.ports.masking import BoxMasker

Labelled = tuple[CorpusImage, Picture]
Classes = Mapping[str, CorpusClass]


class RegionSource(Protocol):
    """Gives every picture the regions that are stored."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What decides the regions beside the picture and its labels: kinds, networks, thresholds."""
        ...

    def regions(self, pictures: Sequence[Labelled], wanted: Classes) -> Iterator[list[Region] | InputError]:
        """Regions of the wanted classes (by raw label), picture by picture; an error stands for a picture's regions.

        They come one picture at a time because full-size masks of a whole batch would not fit into memory.
        """
        ...


class AnnotatedRegions:
    """Masks or boxes as the corpus has them; nothing is detected."""

    def __init__(self, corpus: Corpus, kind: RegionKind) -> None:
        self._corpus, self._kind = corpus, kind

    @property
    def identity(self) -> tuple[str, ...]:
        """See `RegionSource`."""
        return ("annotated", self._kind)

    def regions(self, pictures: Sequence[Labelled], wanted: Classes) -> Iterator[list[Region] | InputError]:
        """See `RegionSource`."""
        for image, picture in pictures:
            try:
                found = self._corpus.regions(image, picture.size, self._kind)
            except InputError as error:
                yield error
            else:
                yield [region for region in found if region.label in wanted]


class MaskedBoxes:
    """Annotated boxes, each of which a masker turns into a mask; a whole photo stays a whole photo."""

    def __init__(self, corpus: Corpus, masker: BoxMasker) -> None:
        self._boxes, self._masker = AnnotatedRegions(corpus, "boxes"), masker

    @property
    def identity(self) -> tuple[str, ...]:
        """See `RegionSource`."""
        return ("masked-boxes", self._masker.name)

    def regions(self, pictures: Sequence[Labelled], wanted: Classes) -> Iterator[list[Region] | InputError]:
        """See `RegionSource`."""
        for (_, picture), found in zip(pictures, self._boxes.regions(pictures, wanted), strict=True):
            yield found if isinstance(found, InputError) else self._masked(picture, found)

    def _masked(self, picture: Picture, regions: list[Region]) -> list[Region]:
        boxed = [region for region in regions if region.mask_source != "whole-image"]
        boxes = torch.tensor([region.box for region in boxed], dtype=torch.float32).reshape(-1, 4)
        masked = self._masker.masks([picture.pixels], [boxes])[0]
        result = [region for region in regions if region.mask_source == "whole-image"]
        for row, region in enumerate(boxed):
            mask = masked.masks.region(row).cpu().numpy()
            if mask.any():
                iou = float(masked.quality[row])
                result.append(replace(region, mask=mask, mask_source=self._masker.name, mask_iou=iou))
        return result


class FoundRegions:
    """Boxes that a detector finds for the labels of a picture, each turned into a mask (RetCLIP, section on databases).

    Classes verified to be absent are asked for as well: they compete for a box, and a box that such a class wins is
    dropped. Prompted with its true labels alone, a detector would give that box to the nearest of them.
    """

    def __init__(self, detector: Detector, masker: BoxMasker, threshold: float) -> None:
        self._detector, self._masker, self._threshold = detector, masker, threshold

    @property
    def identity(self) -> tuple[str, ...]:
        """See `RegionSource`."""
        return ("found", self._detector.name, self._masker.name, str(self._threshold))

    def regions(self, pictures: Sequence[Labelled], wanted: Classes) -> Iterator[list[Region] | InputError]:
        """See `RegionSource`."""
        labels = [_asked(image, wanted) for image, _ in pictures]
        pixels = [picture.pixels for _, picture in pictures]
        phrases = [[wanted[label].name for label in present + absent] for present, absent in labels]
        found = self._detector.detect(pixels, phrases, self._threshold)
        kept = [
            boxes.select((boxes.phrases < len(present)).nonzero()[:, 0])
            for boxes, (present, _) in zip(found, labels, strict=True)
        ]
        masked = self._masker.masks(pixels, [boxes.boxes for boxes in kept])
        for boxes, masks, (present, _) in zip(kept, masked, labels, strict=True):
            regions = []
            for row, phrase in enumerate(boxes.phrases.tolist()):
                mask = masks.masks.region(row).cpu().numpy()
                if not mask.any():
                    continue
                label = wanted[present[phrase]]
                regions.append(
                    Region(
                        label.raw,
                        label.aliases,
                        label.is_thing,
                        mask,
                        _bounds(boxes.boxes[row].tolist()),
                        is_crowd=False,
                        box_source=self._detector.name,
                        mask_source=self._masker.name,
                        detector_score=float(boxes.scores[row]),
                        mask_iou=float(masks.quality[row]),
                        prompt_chunk=boxes.chunks[row],
                    )
                )
            yield regions


def _bounds(box: Sequence[float]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = box
    return x0, y0, x1, y1


def _asked(image: CorpusImage, wanted: Classes) -> tuple[list[str], list[str]]:
    """Raw labels of wanted classes that are in the picture, and that were verified not to be."""
    present = list(dict.fromkeys(label.name for label in image.labels if label.present and label.name in wanted))
    absent = dict.fromkeys(label.name for label in image.labels if not label.present and label.name in wanted)
    return present, [name for name in absent if name not in present]
