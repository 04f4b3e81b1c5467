"""A build that was interrupted goes on where it stopped, and does again what no longer holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.indexer.build import Progress, build
from retclip.shards import Database, unfinished_jobs, verify
from tests.fakes import ColourEncoder, StripeCorpus, build_stripes
from tests.indexer.conftest import STRIPES, create, request_of

UNITS = 4  # 7 pictures, 2 a unit


class Stop(Exception):
    """Thrown into a build in place of a power cut."""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("after", range(1, UNITS + 1))
def test_an_interrupted_build_goes_on_after_its_last_unit(
    tmp_path: Path, corpus: StripeCorpus, after: int, error: type[BaseException]
) -> None:
    expected, _ = build_stripes(tmp_path / "whole.retdb", corpus)
    database = create(tmp_path / "cut.retdb")

    def stop(progress: Progress) -> None:
        if progress.done >= min(7, 2 * after):
            raise error

    with pytest.raises(error):
        build(database, request_of(corpus), ColourEncoder(), "build", stop)
    assert Database.open(database.path).version == 1
    assert [units for _, units in unfinished_jobs(database.path)] == [after]
    assert verify(database.path, deep=True).ok
    encoder = ColourEncoder()
    report = build(Database.open(database.path), request_of(corpus), encoder, "build")
    assert report.resumed_units == after
    assert encoder.calls == 7 - min(7, 2 * after)
    assert report.added == STRIPES
    assert report.content_hash == expected.content_hash()
    assert not list(unfinished_jobs(database.path))


@pytest.mark.parametrize("call", range(1, UNITS + 1))
def test_an_interrupt_inside_a_unit_costs_that_unit_only(tmp_path: Path, corpus: StripeCorpus, call: int) -> None:
    class Interrupted(ColourEncoder):
        units = 0

        def encode_images(self, images):  # type: ignore[no-untyped-def]
            self.units += 1
            if self.units == call:
                raise KeyboardInterrupt
            return super().encode_images(images)

    database = create(tmp_path / "cut.retdb")
    with pytest.raises(KeyboardInterrupt):
        build(database, request_of(corpus), Interrupted(), "build")
    report = build(database, request_of(corpus), ColourEncoder(), "build")
    assert (report.resumed_units, report.added) == (call - 1, STRIPES)
    assert report.content_hash == build_stripes(tmp_path / "whole.retdb", corpus)[0].content_hash()


def test_a_build_that_died_between_commit_and_cleaning_up_claims_nothing_twice(
    tmp_path: Path, corpus: StripeCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = create(tmp_path / "a.retdb")
    with monkeypatch.context() as patch:
        patch.setattr("retclip.shards.ledger.Ledger.forget", lambda self, keys: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            build(database, request_of(corpus), ColourEncoder(), "build")
    committed = Database.open(database.path)
    assert len(committed) == STRIPES
    report = build(committed, request_of(corpus), ColourEncoder(), "build")
    assert (report.added, report.known, report.version) == (0, STRIPES, committed.version)
    assert not list(unfinished_jobs(committed.path))


def test_a_unit_whose_pictures_changed_is_done_again(tmp_path: Path, corpus: StripeCorpus) -> None:
    database = create(tmp_path / "a.retdb")

    def stop(progress: Progress) -> None:
        if progress.done >= 4:
            raise Stop

    with pytest.raises(Stop):
        build(database, request_of(corpus), ColourEncoder(), "build", stop)
    pixels = np.asarray(Image.open(corpus.paths[0])).copy()
    pixels[-1, -1] = 9
    Image.fromarray(pixels).save(corpus.paths[0])
    os.utime(corpus.paths[0], (1, 1))
    report = build(database, request_of(corpus), ColourEncoder(), "build")
    assert report.resumed_units == 1
    assert report.content_hash == build_stripes(tmp_path / "whole.retdb", corpus)[0].content_hash()


@pytest.mark.parametrize("take_back", ["undo", "delete"])
def test_units_that_left_out_what_is_gone_since_are_done_again(
    tmp_path: Path, corpus: StripeCorpus, take_back: str
) -> None:
    database, first = build_stripes(tmp_path / "a.retdb", corpus, lambda request: replace(request, limit=3))

    def stop(progress: Progress) -> None:
        if progress.done >= 6:
            raise Stop

    with pytest.raises(Stop):
        build(database, request_of(corpus), ColourEncoder(), "build", stop)
    if take_back == "undo":
        database = database.undo()
    else:
        with database.write("delete", "test") as transaction:
            transaction.delete(labels=["green"])
            database = transaction.commit()
    report = build(database, request_of(corpus), ColourEncoder(), "build")
    # Of the first three pictures two are of the first unit, the third is of the second; the third unit was all new.
    assert (report.resumed_units, report.known) == ((1, 0) if take_back == "undo" else (2, first.added - 1))
    assert report.content_hash == build_stripes(tmp_path / "whole.retdb", corpus)[0].content_hash()


def test_failures_of_an_interrupted_run_are_still_reported(tmp_path: Path, corpus: StripeCorpus) -> None:
    corpus.paths[0].write_bytes(b"no picture")
    database = create(tmp_path / "a.retdb")

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        build(database, request_of(corpus), ColourEncoder(), "build", stop)
    report = build(database, request_of(corpus), ColourEncoder(), "build")
    assert report.resumed_units == 1
    assert [failure.image_id for failure in report.failures] == ["0000"]


def test_a_short_run_leaves_the_units_of_a_longer_one(tmp_path: Path, corpus: StripeCorpus) -> None:
    def stop(progress: Progress) -> None:
        if progress.done >= 6:
            raise KeyboardInterrupt

    database = create(tmp_path / "a.retdb")
    with pytest.raises(KeyboardInterrupt):
        build(database, request_of(corpus), ColourEncoder(), "build", stop)
    build(database, replace(request_of(corpus), limit=2), ColourEncoder(), "build")
    assert [units for _, units in unfinished_jobs(database.path)] == [2]
    report = build(Database.open(database.path), request_of(corpus), ColourEncoder(), "build")
    assert report.resumed_units == 2
    assert report.content_hash == build_stripes(tmp_path / "b.retdb", corpus)[1].content_hash
