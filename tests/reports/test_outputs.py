"""Files of one image and of a batch."""

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import InputError, ResourceError
from retclip.core.panoptic import rgb_to_ids
from retclip.reports.outputs import DEFAULT_FORMATS, FORMATS, BatchWriter, write_outputs


@pytest.fixture
def make(samples):
    def build(image="photos/street.jpg", seed=0):
        return samples.make_result(
            samples.make_blocks(30, 40, 5, seed), samples.make_vocabulary(["a", "b"]), image=image
        )

    return build


def test_default_formats(tmp_path, samples, make):
    written = write_outputs(make(), samples.make_pixels(30, 40), tmp_path / "out" / "street")
    assert [p.name for p in written] == ["panoptic.png", "panoptic.json", "overlay.jpg", "segments.json"]
    assert sorted(p.name for p in (tmp_path / "out" / "street").iterdir()) == sorted(p.name for p in written)


def test_every_format_twice_alike_and_readable(tmp_path, samples, make):
    first = write_outputs(make(), samples.make_pixels(30, 40), tmp_path / "a", tuple(FORMATS), samples.make_thumbnail)
    again = write_outputs(make(), samples.make_pixels(30, 40), tmp_path / "b", tuple(FORMATS), samples.make_thumbnail)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in again]
    for path in first:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix != ".html":
            Image.open(path).load()
    assert set(DEFAULT_FORMATS) <= set(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_each_format_alone_works_on_nothing_found(tmp_path, samples, name):
    empty = samples.make_result(np.zeros((1, 1), dtype=np.int32), samples.make_vocabulary(["a"]))
    assert write_outputs(empty, samples.make_pixels(1, 1), tmp_path, [name])


def test_unknown_formats_are_listed(tmp_path, samples, make):
    with pytest.raises(InputError, match="E132 Unknown output format: gif") as caught:
        write_outputs(make(), samples.make_pixels(30, 40), tmp_path / "out", ["gif", "coco"])
    assert "panoptic, coco" in caught.value.why
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_part(tmp_path, samples, make, monkeypatch):
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ResourceError, match="E401"):
        write_outputs(make(), samples.make_pixels(30, 40), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_is_ready_for_evaluation(tmp_path, make):
    results = [make("000000000139.jpg"), make("b/street.png", seed=1)]
    with BatchWriter(tmp_path) as batch:
        for result in results:
            batch.add(result)
        assert not (tmp_path / "panoptic.json").exists()
    document = json.loads((tmp_path / "panoptic.json").read_text())
    assert [image["id"] for image in document["images"]] == [139, "street"]
    for annotation, result in zip(document["annotations"], results, strict=True):
        ids = rgb_to_ids(np.asarray(Image.open(tmp_path / "panoptic" / annotation["file_name"])))
        assert np.array_equal(ids, result.panoptic.ids)
        assert {info["id"]: info["area"] for info in annotation["segments_info"]} == {
            int(i): int((ids == i).sum()) for i in np.unique(ids) if i
        }
    run = json.loads((tmp_path / "run.json").read_text())
    assert [image["file"] for image in run["images"]] == ["000000000139.jpg", "b/street.png"]


@pytest.mark.parametrize(("first", "second"), [("a/1.jpg", "b/1.jpg"), ("a/1.jpg", "b/001.png")])
def test_two_images_of_one_name_are_refused(tmp_path, make, first, second):
    with BatchWriter(tmp_path) as batch:
        batch.add(make(first))
        with pytest.raises(InputError, match="E133"):
            batch.add(make(second))
    assert len(json.loads((tmp_path / "panoptic.json").read_text())["images"]) == 1


def test_an_aborted_batch_has_no_index(tmp_path, make):
    with pytest.raises(KeyboardInterrupt), BatchWriter(tmp_path) as batch:  # noqa: PT012
        batch.add(make())
        raise KeyboardInterrupt
    assert not (tmp_path / "panoptic.json").exists()


def test_a_batch_has_one_vocabulary(tmp_path, samples, make):
    with BatchWriter(tmp_path) as batch:
        batch.add(make())
        other = dataclasses.replace(make("other.jpg"), vocabulary=samples.make_vocabulary(["a", "b", "c"]))
        with pytest.raises(ValueError, match="vocabulary of a batch"):
            batch.add(other)
