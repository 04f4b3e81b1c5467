"""Builds: complete, resumable, repeatable, and honest about what they did."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import FeatureSpaceMismatch
from retclip.core.rle import decode_mask
from retclip.core.vocabulary import Vocabulary
from retclip.corpora.folder import FolderCorpus
from retclip.indexer.build import build
from retclip.indexer.plan import BuildRequest
from retclip.indexer.regions import AnnotatedRegions
from retclip.shards import Database, unfinished_jobs, verify
from tests.fakes import COLOURS, ColourEncoder, StripeCorpus, build_stripes, strips
from tests.indexer.conftest import STRIPES, create, request_of


def test_every_region_is_stored_with_its_origin(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, report = build_stripes(tmp_path / "a.retdb", corpus)
    assert (report.images, report.added, report.known, report.capped) == (7, STRIPES, 0, 0)
    assert report.failures == ()
    assert report.warnings == ("Stripes are not photographs.",)
    assert report.version == database.version == 2
    assert report.content_hash == database.content_hash()
    wanted = Counter(colour for colours in corpus._pictures for colour in colours)
    assert {item.name: item.count for item in database.classes} == wanted == report.classes
    for _, _, segment in database.iter_segments():
        number = int(segment.image_id)
        picture = np.asarray(Image.open(corpus.paths[number]))
        mask = decode_mask(segment.mask_counts, picture.shape[:2])
        stripe = tuple(np.median(picture[mask], axis=0).astype(int))
        assert stripe == COLOURS[segment.label]
        assert segment.area == mask.sum()
        assert segment.label_raw == f"raw {segment.label}"
        assert (segment.label_source, segment.label_confidence) == ("human", 0.75)
        assert (segment.split, segment.license, segment.attribution) == ("train", "CC0", "nobody")
        assert segment.image_uri == str(corpus.paths[number])
        assert segment.is_thing == (segment.label != "grey")
    assert not list(unfinished_jobs(database.path))


def test_synonyms_are_kept_unless_they_name_another_class(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, _ = build_stripes(tmp_path / "a.retdb", corpus)
    aliases = {item.name: item.aliases for item in database.classes}
    assert aliases["red"] == ("scarlet",)
    assert aliases["blue"] == ("navy",)


def test_the_same_build_twice_is_the_same_content(tmp_path: Path, corpus: StripeCorpus) -> None:
    first, _ = build_stripes(tmp_path / "a.retdb", corpus)
    again, _ = build_stripes(tmp_path / "b.retdb", corpus)
    other_units, _ = build_stripes(
        tmp_path / "c.retdb", corpus, lambda request: replace(request, batch=5, shard_rows=3)
    )
    assert first.content_hash() == again.content_hash() == other_units.content_hash()
    assert len(other_units.manifest.shards) == 4


def test_shards_do_not_change_what_a_search_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [list(rng.choice(list(COLOURS), size=4)) for _ in range(40)]
    corpus = StripeCorpus.write(tmp_path / "photos", pictures)
    many, _ = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, shard_rows=50), "centre")
    one, _ = build_stripes(tmp_path / "b.retdb", corpus, lambda request: replace(request, shard_rows=100_000), "centre")
    assert len(many.manifest.shards) == 4
    assert len(one.manifest.shards) == 1
    assert many.content_hash() == one.content_hash()
    queries = rng.normal(size=(9, 6)).astype(np.float32)
    for classes, per_class in ((None, None), (None, 2), ([0, 3], None)):
        left, right = (database.search(queries, 20, classes, per_class) for database in (many, one))
        assert np.array_equal(left.segment_id, right.segment_id)
        assert np.array_equal(left.distance, right.distance)
        assert np.array_equal(left.class_id, right.class_id)


def test_building_again_adds_nothing_and_makes_no_version(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, first = build_stripes(tmp_path / "a.retdb", corpus)
    encoder = ColourEncoder()
    report = build(database, request_of(corpus), encoder, "build")
    assert (report.added, report.known) == (0, STRIPES)
    assert report.version == first.version
    assert report.content_hash == first.content_hash
    assert encoder.calls == 0
    assert len(Database.open(database.path).history()) == 2


def test_new_pictures_are_added_to_the_old_ones(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, _ = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, limit=3))
    assert len(database) == 6
    encoder = ColourEncoder()
    report = build(database, request_of(corpus), encoder, "build")
    assert (report.added, report.known, report.version) == (6, 6, 3)
    assert encoder.calls == 4
    whole, _ = build_stripes(tmp_path / "b.retdb", corpus)
    assert report.content_hash == whole.content_hash()


def test_failed_pictures_are_named_and_the_others_are_stored(tmp_path: Path) -> None:
    corpus = StripeCorpus.write(tmp_path / "p", [["red"], ["green"], [], ["blue"], ["grey"]])
    corpus.paths[1].write_bytes(corpus.paths[1].read_bytes()[:60])
    corpus.paths[3].unlink()
    database, report = build_stripes(tmp_path / "a.retdb", corpus)
    assert {item.name for item in database.classes} == {"red", "grey"}
    assert (report.images, report.added) == (5, 2)
    assert sorted((Path(f.path), f.code) for f in report.failures) == [
        (corpus.paths[1], "E114"), (corpus.paths[2], "E119"), (corpus.paths[3], "E111")
    ]  # fmt: skip
    assert all(failure.message for failure in report.failures)


def test_a_picture_whose_name_is_not_utf8_is_named_and_the_others_are_stored(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for number, name in enumerate([b"caf\xe9.png", b"one.png", b"two.png"]):
        path = tmp_path / "photos" / "cat" / os.fsdecode(name)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path)
    corpus = FolderCorpus(tmp_path / "photos")
    report = build(
        create(tmp_path / "a.retdb"), BuildRequest(corpus, AnnotatedRegions(corpus, "boxes")), ColourEncoder(), "build"
    )
    assert report.added == 2
    [failure] = report.failures
    assert (failure.image_id, failure.code) == ("cat/caf\\udce9.png", "E111")
    assert all(str(text).encode() for text in asdict(failure).values())


def test_a_picture_that_vanishes_after_the_plan_is_a_failure(tmp_path: Path, corpus: StripeCorpus) -> None:
    database = create(tmp_path / "a.retdb")
    report = build(
        database, request_of(corpus), ColourEncoder(), "build", lambda _: corpus.paths[-1].unlink(missing_ok=True)
    )
    assert [(failure.image_id, failure.code) for failure in report.failures] == [("0006", "E111")]
    assert report.added == STRIPES - 1


def test_regions_without_features_are_a_failure_and_never_stored(tmp_path: Path, corpus: StripeCorpus) -> None:
    class HalfBlind(ColourEncoder):
        def embed(self, features, masks):  # type: ignore[no-untyped-def]
            keys = super().embed(features, masks)
            keys[0] = float("nan")
            return keys

    database = create(tmp_path / "a.retdb")
    report = build(database, request_of(corpus), HalfBlind(), "build")
    assert {failure.code for failure in report.failures} == {"E116"}
    assert len(report.failures) == 7
    assert report.added == STRIPES - 7
    assert verify(database.path, deep=True).ok


def test_two_copies_of_a_picture_are_one_set_of_segments(tmp_path: Path) -> None:
    corpus = StripeCorpus.write(tmp_path / "p", [["red", "blue"]] * 4)
    for path in corpus.paths[1:]:
        shutil.copy(corpus.paths[0], path)
    for number, batch in enumerate((1, 4)):
        database, report = build_stripes(
            tmp_path / f"{number}.retdb", corpus, lambda request, batch=batch: replace(request, batch=batch)
        )
        assert len(database) == 2
        assert (report.added, report.known, report.capped) == (2, 6, 0)
    capped, report = build_stripes(tmp_path / "c.retdb", corpus, lambda request: replace(request, per_class_cap=2))
    assert len(capped) == 2
    assert (report.added, report.known, report.capped) == (2, 6, 0)


@pytest.mark.parametrize("cap", [1, 2, 100])
def test_no_class_grows_beyond_its_cap(tmp_path: Path, corpus: StripeCorpus, cap: int) -> None:
    change: Callable[[BuildRequest], BuildRequest] = lambda request: replace(request, per_class_cap=cap)  # noqa: E731
    database, report = build_stripes(tmp_path / "a.retdb", corpus, change)
    wanted = Counter(colour for colours in corpus._pictures for colour in colours)
    assert {item.name: item.count for item in database.classes} == {c: min(cap, n) for c, n in wanted.items()}
    assert report.added == len(database)
    assert report.capped == STRIPES - len(database)
    again = build(database, change(request_of(corpus)), ColourEncoder(), "build")
    assert (again.added, again.version) == (0, report.version)


def test_the_cap_counts_segments_under_every_name_of_their_class(tmp_path: Path) -> None:
    corpus = StripeCorpus.write(tmp_path / "p", [["red"]] * 4)
    database, _ = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, limit=2))
    with database.write("relabel", "test") as transaction:
        transaction.relabel("red", "Scarlet")
        database = transaction.commit()
    report = build(database, replace(request_of(corpus), per_class_cap=3), ColourEncoder(), "build")
    assert (report.added, report.capped) == (1, 1)
    assert report.classes == {"Scarlet": 3}


def test_only_asked_classes_and_large_regions_are_taken(tmp_path: Path, corpus: StripeCorpus) -> None:
    words = Vocabulary.from_names("w", ["scarlet", "GREEN"])
    database, report = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, vocabulary=words))
    assert {item.name for item in database.classes} == {"red", "green"} == set(report.classes)
    least = int(strips((24, 48), 1)[0].sum())
    large, _ = build_stripes(tmp_path / "b.retdb", corpus, lambda request: replace(request, min_area=least))
    assert sorted(segment.image_id for _, _, segment in large.iter_segments()) == ["0001", "0005", "0006"]


def test_a_corpus_without_wanted_regions_makes_no_version(tmp_path: Path, corpus: StripeCorpus) -> None:
    words = Vocabulary.from_names("w", ["zebra"])
    database, report = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, vocabulary=words))
    assert (report.added, report.version, len(database)) == (0, 1, 0)


def test_thumbnails_are_small_pictures_of_the_region(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, _ = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, thumbnails=16))
    for _, _, segment in database.iter_segments():
        data = database.thumbnail(segment.segment_id)
        assert data is not None
        path = tmp_path / "thumbnail.jpg"
        path.write_bytes(data)
        image = Image.open(path)
        assert image.format == "JPEG"
        assert max(image.size) <= 16


def test_another_encoder_is_refused_before_anything_is_read(tmp_path: Path, corpus: StripeCorpus) -> None:
    database = create(tmp_path / "a.retdb")
    with pytest.raises(FeatureSpaceMismatch, match="fake/other"):
        build(database, request_of(corpus), ColourEncoder("fake/other"), "build")
    assert corpus.decoded == []
    assert not list(unfinished_jobs(database.path))


def stored_vectors(database: Database) -> dict[tuple[int, str], np.ndarray]:
    return {
        (segment.segment_id, segment.label): database.vectors([(shard, row)])[0]
        for shard, row, segment in database.iter_segments()
    }


def test_deleted_segments_come_back_only_when_they_are_built_again(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, _ = build_stripes(tmp_path / "a.retdb", corpus)
    whole = stored_vectors(database)
    with database.write("delete", "test") as transaction:
        assert transaction.delete(labels=["red"]) == 3
        database = transaction.commit()
    assert "red" not in {item.name for item in database.classes}
    report = build(database, request_of(corpus), ColourEncoder(), "build")
    assert report.added == 3
    again = stored_vectors(Database.open(database.path))
    assert again.keys() == whole.keys()
    # A picture pooled for fewer regions may round its last bit differently.
    np.testing.assert_allclose(list(again.values()), [whole[key] for key in again], atol=1e-3)


def test_a_class_keeps_its_kind_when_it_is_taught(tmp_path: Path) -> None:
    first = StripeCorpus.write(tmp_path / "first", [["grey", "red"]])
    database, _ = build_stripes(tmp_path / "a.retdb", first)

    class Things(StripeCorpus):
        def regions(self, image, size, kind):  # type: ignore[no-untyped-def]
            return [replace(region, is_thing=True) for region in super().regions(image, size, kind)]

    more = Things.write(tmp_path / "more", [["red", "grey"], ["grey"], ["grey", "blue"]])
    build(database, request_of(more), ColourEncoder(), "add-classes")
    kinds = {item.name: item.is_thing for item in Database.open(database.path).classes}
    assert kinds == {"grey": False, "red": True, "blue": True}


def test_a_class_whose_only_region_has_another_label_too_gets_no_names(tmp_path: Path) -> None:
    """One picture under two names: its region is stored once, and no class red is made that could be called scarlet."""
    corpus = StripeCorpus.write(tmp_path / "twins", [["blue"], ["red"]], {"red": ("scarlet",), "blue": ("navy",)})
    shutil.copy(corpus.paths[0], corpus.paths[1])
    database, report = build_stripes(tmp_path / "a.retdb", corpus)
    assert (report.added, report.known) == (1, 1)
    assert {c.name: c.aliases for c in database.classes} == {"blue": ("navy",)}


def test_regions_that_are_stored_under_another_class_are_named(tmp_path: Path, corpus: StripeCorpus) -> None:
    database, _ = build_stripes(tmp_path / "a.retdb", corpus)
    with database.write("relabel", "test") as transaction:
        transaction.relabel_segments(
            [s.segment_id for _, _, s in database.iter_segments() if s.label == "red"], "purple"
        )
        moved = transaction.commit()
    report = build(moved, request_of(corpus), ColourEncoder(), "build")
    assert report.added == 0
    assert any("labelled 'red' are stored as 'purple'" in warning for warning in report.warnings)
