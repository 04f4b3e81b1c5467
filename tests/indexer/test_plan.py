"""Plans: units and the keys that say whether they were done before."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from retclip.core.identity import FeatureSpace
from retclip.core.vocabulary import Vocabulary
from retclip.indexer.plan import BuildRequest, work_units
from retclip.indexer.regions import AnnotatedRegions
from retclip.ports.corpora import CorpusClass, CorpusImage, ImageLabel
from tests.fakes import ColourEncoder, StripeCorpus

SPACE = ColourEncoder().space


def test_units_hold_every_picture_once_in_order(corpus: StripeCorpus) -> None:
    images = list(corpus.images())
    for batch in (1, 2, 3, 7, 100):
        units = list(work_units(images, batch))
        assert [image for unit in units for image in unit.images] == images
        assert all(len(unit.images) == batch for unit in units[:-1])
        assert len({unit.key for unit in units}) == len(units)


def test_a_limit_takes_the_first_pictures(corpus: StripeCorpus) -> None:
    request = BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), limit=3)
    assert [image.image_id for image in request.images()] == ["0000", "0001", "0002"]


def test_keys_follow_files_and_labels(corpus: StripeCorpus) -> None:
    image = next(iter(corpus.images()))

    def key(picture: CorpusImage) -> str:
        return next(work_units([picture], 1)).key

    before = key(image)
    assert key(replace(image, license="other")) == before
    changed = [
        replace(image, image_id="9"),
        replace(image, split="val"),
        replace(image, source="other"),
        replace(image, labels=(*image.labels, ImageLabel("raw grey", "human", 1.0, False))),
        replace(image, path=image.path.with_name("gone.png")),
    ]
    keys = [key(picture) for picture in changed]
    os.utime(image.path, (5, 5))
    keys.append(key(image))
    assert len({before, *keys}) == len(keys) + 1


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda r: replace(r, limit=2), True),
        (lambda r: replace(r, batch=5), True),
        (lambda r: replace(r, per_class_cap=5), True),
        (lambda r: replace(r, thumbnails=0), True),
        (lambda r: replace(r, shard_rows=9), True),
        (lambda r: replace(r, source=AnnotatedRegions(r.corpus, "boxes")), False),
        (lambda r: replace(r, min_area=7), False),
        (lambda r: replace(r, vocabulary=Vocabulary.from_names("v", ["red"])), False),
    ],
)
def test_jobs_are_shared_exactly_when_their_units_can_be(
    corpus: StripeCorpus, change: Callable[[BuildRequest], BuildRequest], same: bool
) -> None:
    request = BuildRequest(corpus, AnnotatedRegions(corpus, "masks"))
    assert (change(request).job(SPACE) == request.job(SPACE)) == same


@pytest.mark.parametrize(
    ("change", "same"), [({"name": "lion"}, False), ({"is_thing": False}, False), ({"aliases": ("mouser",)}, True)]
)
def test_units_hold_the_name_and_the_kind_of_a_class(corpus: StripeCorpus, change: dict[str, Any], same: bool) -> None:
    class Corrected(StripeCorpus):
        @property
        def classes(self) -> tuple[CorpusClass, ...]:
            return tuple(replace(item, **change) if item.name == "red" else item for item in super().classes)

    source = AnnotatedRegions(corpus, "masks")
    corrected = Corrected(corpus.paths[0].parent, corpus._pictures, corpus._aliases)
    assert (BuildRequest(corrected, source).job(SPACE) == BuildRequest(corpus, source).job(SPACE)) == same


def test_jobs_of_two_encoders_are_apart(corpus: StripeCorpus) -> None:
    other: FeatureSpace = replace(SPACE, weights_sha256="1" * 64)
    request = BuildRequest(corpus, AnnotatedRegions(corpus, "masks"))
    assert request.job(SPACE) != request.job(other)


def test_wanted_classes_are_found_by_any_of_their_names(corpus: StripeCorpus) -> None:
    for name in ("raw red", "scarlet", "SCARLET"):
        request = BuildRequest(corpus, AnnotatedRegions(corpus, "masks"), Vocabulary.from_names("v", [name]))
        assert [item.name for item in request.wanted().values()] == ["red"]
    assert len(BuildRequest(corpus, AnnotatedRegions(corpus, "masks")).wanted()) == len(corpus.classes)


def test_vanished_files_are_left_to_the_build(tmp_path: Path, corpus: StripeCorpus) -> None:
    for path in corpus.paths:
        path.unlink()
    assert len(list(work_units(corpus.images(), 2))) == 4
