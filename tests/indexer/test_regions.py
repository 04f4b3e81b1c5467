"""Where the regions of a build come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import InputError
from retclip.core.rle import decode_mask
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions, FoundRegions, Labelled, MaskedBoxes
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel, Region
from tests.fakes import BoxFiller, ColourDetector, StripeCorpus, build_stripes, picture_of


def classes(corpus: StripeCorpus) -> dict[str, CorpusClass]:
    return {item.raw: item for item in corpus.classes}


def labelled(image: CorpusImage, stripes: Sequence[str], *labels: ImageLabel) -> Labelled:
    return replace(image, labels=labels), picture_of(stripes)


def said(name: str, *, present: bool = True) -> ImageLabel:
    return ImageLabel(f"raw {name}", "human", 1.0, present)


def found(source: FoundRegions, pictures: Sequence[Labelled], wanted: dict[str, CorpusClass]) -> list[list[Region]]:
    result = []
    for regions in source.regions(pictures, wanted):
        assert not isinstance(regions, InputError)
        result.append(regions)
    return result


def test_annotated_regions_are_those_of_wanted_classes_and_errors_stand_for_their_picture(tmp_path: Path) -> None:
    corpus = StripeCorpus.write(tmp_path / "p", [["red", "blue"], [], ["blue"]])
    pictures = [(image, image.read()) for image in corpus.images()]
    wanted = {"raw blue": classes(corpus)["raw blue"]}
    first, second, third = AnnotatedRegions(corpus, "masks").regions(pictures, wanted)
    assert not isinstance(first, InputError)
    assert [region.label for region in first] == ["raw blue"]
    assert isinstance(second, InputError)
    assert not isinstance(third, InputError)


def test_objects_are_found_by_the_labels_of_their_picture(corpus: StripeCorpus) -> None:
    detector = ColourDetector()
    image = next(iter(corpus.images()))
    pictures = [
        labelled(image, ["red", "blue", "red"], said("red"), said("red"), said("blue")),
        labelled(image, ["green"]),
        labelled(image, ["blue"], said("blue")),
    ]
    first, second, third = found(FoundRegions(detector, BoxFiller(), 0.9), pictures, classes(corpus))
    assert detector.asked == [("red", "blue"), (), ("blue",)]
    assert sorted(region.label for region in first) == ["raw blue", "raw red", "raw red"]
    assert (second, [region.label for region in third]) == ([], ["raw blue"])
    blue = next(region for region in first if region.label == "raw blue")
    assert blue.box == (16.0, 0.0, 32.0, 24.0)
    assert blue.mask[:, 18:30].all()
    assert not blue.mask[:, :14].any()
    assert (blue.box_source, blue.mask_source, blue.prompt_chunk) == (ColourDetector.name, BoxFiller.name, "c0ffee")
    assert (blue.detector_score, blue.mask_iou) == (pytest.approx(1.0), pytest.approx(0.875))


def test_a_class_verified_absent_wins_its_look_alikes_and_loses_them(corpus: StripeCorpus) -> None:
    image = next(iter(corpus.images()))
    stripes = ["red", "yellow"]  # somebody's label says red only; yellow is no exemplar of red
    alone = labelled(image, stripes, said("red"))
    against = labelled(image, stripes, said("red"), said("yellow", present=False))
    source = FoundRegions(ColourDetector(), BoxFiller(), 0.5)
    naive, guarded = found(source, [alone, against], classes(corpus))
    assert [region.label for region in naive] == ["raw red", "raw red"]
    assert [region.box for region in guarded] == [(0.0, 0.0, 24.0, 24.0)]


def test_annotated_boxes_become_masks_but_whole_photos_stay_whole(tmp_path: Path) -> None:
    class Boxes(StripeCorpus):
        def regions(self, image, size, kind):
            regions = super().regions(image, size, kind)
            whole = replace(regions[1], mask=np.ones(size, bool), box=(0, 0, size[1], size[0]))
            return [regions[0], replace(whole, mask_source="whole-image")]

    corpus = Boxes.write(tmp_path / "p", [["red", "blue"]])
    image = next(iter(corpus.images()))
    (regions,) = MaskedBoxes(corpus, BoxFiller()).regions([(image, image.read())], classes(corpus))
    assert not isinstance(regions, InputError)
    assert {(r.label, r.mask_source, bool(r.mask.all())) for r in regions} == {
        ("raw red", BoxFiller.name, False),
        ("raw blue", "whole-image", True),
    }


def test_a_database_says_which_networks_found_its_segments(tmp_path: Path, corpus: StripeCorpus) -> None:
    networks = ({"role": "detector", "name": "fake", "license": "CC0", "sha256": "00"},)

    def change(request: BuildRequest) -> BuildRequest:
        return replace(request, source=FoundRegions(ColourDetector(), BoxFiller(), 0.9), models=networks)

    database, report = build_stripes(tmp_path / "a.retdb", corpus, change)
    assert (report.added, report.failures) == (len(database), ())
    assert list(database.models) == list(networks)
    for _, _, segment in database.iter_segments():
        assert (segment.box_source, segment.mask_source) == (ColourDetector.name, BoxFiller.name)
        assert (segment.prompt_chunk, segment.label_source) == ("c0ffee", "human")
        mask = decode_mask(segment.mask_counts, (segment.image_height, segment.image_width))
        assert int(mask.sum()) == segment.area
    again = build_stripes(tmp_path / "b.retdb", corpus, change)[1]
    assert again.content_hash == report.content_hash


def test_other_networks_and_thresholds_are_another_job(corpus: StripeCorpus) -> None:
    sources = [
        AnnotatedRegions(corpus, "masks"),
        AnnotatedRegions(corpus, "boxes"),
        MaskedBoxes(corpus, BoxFiller()),
        FoundRegions(ColourDetector(), BoxFiller(), 0.5),
        FoundRegions(ColourDetector(), BoxFiller(), 0.6),
    ]
    assert len({source.identity for source in sources}) == len(sources)
