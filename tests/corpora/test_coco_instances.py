from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from retclip.core.errors import ImageError, InputError
from retclip.core.images import read_picture
from retclip.core.rle import encode_mask
from retclip.corpora.coco_instances import CocoInstances

SIZE = (6, 8)
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]
CROWD = np.zeros(SIZE, np.bool_)
CROWD[2:, 5:] = True
RUNS = [32, 4, 2, 4, 2, 4]  # down the columns: five empty ones, then three that are set from row 2 on


def instance(outline: Any, box: list[float], crowd: int = 0, category: int = 1, image: int = 20) -> dict[str, Any]:
    return {
        "id": 1, "image_id": image, "category_id": category, "bbox": box, "iscrowd": crowd, "segmentation": outline,
        "area": 1.0,
    }  # fmt: skip


CONTENT: dict[str, Any] = {
    "licenses": [{"id": 4, "name": "Attribution License"}],
    "images": [
        {"id": 20, "file_name": "000020.jpg", "license": 4, "flickr_url": "http://example.org/20"},
        {"id": 3, "file_name": "000003.jpg"},
    ],
    "annotations": [
        instance([SQUARE], [1, 1, 4, 3]),
        instance({"size": list(SIZE), "counts": RUNS}, [5, 2, 3, 4], crowd=1),
        instance({"size": list(SIZE), "counts": encode_mask(CROWD).decode()}, [5, 2, 3, 4], category=3),
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
}
CAPTIONS = {**CONTENT, "annotations": [{"image_id": 20, "caption": " A cat. "}, {"image_id": 20, "caption": "Two."}]}


def write_corpus(root: Path, *instances: Any, captions: bool = True) -> Path:
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for name in ("000003.jpg", "000020.jpg"):
        Image.new("RGB", SIZE[::-1]).save(root / "train2017" / name)
    content = {**deepcopy(CONTENT), "annotations": list(instances) or CONTENT["annotations"]}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    if captions:
        (root / "annotations" / "captions_train2017.json").write_text(json.dumps(CAPTIONS))
    return root


def masks_of(corpus: CocoInstances, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    image = next(image for image in corpus.images() if image.image_id == "20")
    return [region.mask for region in corpus.regions(image, size, "masks")]


def test_labels_captions_and_licence_come_with_the_photo(tmp_path: Path) -> None:
    first, second = CocoInstances(write_corpus(tmp_path)).images()
    assert (first.image_id, first.labels, first.captions) == ("3", (), ())
    assert [label.name for label in second.labels] == ["person", "car"]
    assert (second.captions, second.license) == (("A cat.", "Two."), "Attribution License")


def test_outlines_and_both_kinds_of_run_lengths_are_painted(tmp_path: Path) -> None:
    corpus = CocoInstances(write_corpus(tmp_path))
    square, crowd, code = masks_of(corpus)
    assert square.sum() == 12
    assert square[1:4, 1:5].all()
    np.testing.assert_array_equal(crowd, CROWD)
    np.testing.assert_array_equal(code, CROWD)
    regions = corpus.regions(list(corpus.images())[1], SIZE, "boxes")
    assert [(r.label, r.is_crowd, r.mask_source) for r in regions] == [
        ("person", False, "box"), ("person", True, "box"), ("car", False, "box"),
    ]  # fmt: skip
    assert regions[0].box == (1.0, 1.0, 5.0, 4.0)


def test_captions_alone_are_a_corpus_without_regions(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "annotations" / "instances_train2017.json").unlink()
    corpus = CocoInstances(tmp_path)
    images = list(corpus.images())
    assert (corpus.classes, [len(image.captions) for image in images]) == ((), [0, 2])
    with pytest.raises(InputError, match=r"E106 .*no masks.*train2017"):
        corpus.regions(images[1], SIZE, "masks")


def test_instances_without_area_are_left_out_and_counted(tmp_path: Path) -> None:
    flat = instance([SQUARE], [1, 1, 4, 0])
    thin = instance([[1, 1, 1, 1, 1, 1]], [1, 1, 1, 1])
    line = instance([[1, 1, 2, 2]], [1, 1, 1, 1])
    corpus = CocoInstances(write_corpus(tmp_path, flat, thin, line))
    assert masks_of(corpus) == []
    assert corpus.warnings() == ["1 instances have a box without area and are left out"]


@pytest.mark.parametrize(
    "outline",
    [
        [[float("nan"), 1, 2, 3, 4, 5]],
        [[1e9, 1, 2, 3, 4, 5]],
        [[-1e9, 1, 2, 3, 4, 5]],
        [[1, 1, 2, 3, 4, 5, 6]],
        {"size": [8, 6], "counts": RUNS},
        {"size": list(SIZE), "counts": [1, 2]},
        {"size": list(SIZE), "counts": [-1, 49]},
        {"size": list(SIZE), "counts": [1 << 62, 1 << 62, 1 << 62, 1 << 62]},
        {"size": list(SIZE), "counts": "0"},
        {"size": list(SIZE), "counts": "\x7f\x7f"},
    ],
    ids=["nan", "far", "far left", "odd", "turned", "short", "negative", "overflow", "short code", "no code"],
)
def test_hostile_outlines_are_refused_one_picture_at_a_time(tmp_path: Path, outline: Any) -> None:
    corpus = CocoInstances(write_corpus(tmp_path, instance(outline, [1, 1, 4, 3])))
    with pytest.raises(ImageError, match=r"E116 .*000020\.jpg"):
        masks_of(corpus)


@pytest.mark.parametrize(
    "item",
    [
        instance([SQUARE], [1, 1, 4, 3], category=77),
        {"image_id": 20, "caption": "A cat."},
        instance("none", [1, 1, 4, 3]),
        instance([["a"] * 6], [1, 1, 4, 3]),
        instance({"size": [1, 2], "counts": [1 << 80]}, [1, 1, 4, 3]),
        instance({"counts": [1]}, [1, 1, 4, 3]),
    ],
    ids=["category", "caption", "text", "letters", "huge", "no size"],
)
def test_other_json_is_refused_with_its_name(tmp_path: Path, item: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"E103 .*instances_train2017\.json"):
        CocoInstances(write_corpus(tmp_path, item))


def test_missing_photos_are_warned_about_or_an_error(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "train2017" / "000003.jpg").unlink()
    corpus = CocoInstances(tmp_path)
    assert (corpus.size(), corpus.warnings()[0][:15]) == (1, "1 listed photos")
    (tmp_path / "train2017" / "000020.jpg").unlink()
    with pytest.raises(InputError, match="E101 No images"):
        CocoInstances(tmp_path)


@pytest.mark.photos
@pytest.mark.parametrize(("split", "count", "crowds"), [("train", 470, 5), ("val", 382, 5)])
def test_real_annotations_equal_the_reference_implementation(
    test_data: Path, split: str, count: int, crowds: int
) -> None:
    root = test_data / "tiny_coco" / "tiny_coco"
    corpus = CocoInstances(root, split)
    content = json.loads((root / "annotations" / f"instances_{corpus.split}.json").read_text())
    found = crowd = 0
    for image in corpus.images():
        size = read_picture(image.path).size
        regions = corpus.regions(image, size, "masks")
        listed = [a for a in content["annotations"] if str(a["image_id"]) == image.image_id]
        for region, entry in zip(regions, listed, strict=True):
            code = coco_mask.frPyObjects(entry["segmentation"], *size)
            reference = coco_mask.decode(coco_mask.merge(code) if isinstance(code, list) else code)
            np.testing.assert_array_equal(region.mask, reference.astype(bool))
        assert len(image.captions) == 5
        found, crowd = found + len(regions), crowd + sum(region.is_crowd for region in regions)
    assert (found, crowd, corpus.warnings()) == (count, crowds, [])
