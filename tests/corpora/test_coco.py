from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retclip.core.errors import ImageError, InputError
from retclip.core.images import read_annotation, read_picture
from retclip.core.panoptic import ids_to_rgb, rgb_to_ids
from retclip.corpora.coco import CocoCorpus, map_classes

IDS = np.array([[0, 300, 300, 70_000], [5, 5, 300, 70_000]], np.int32)
CONTENT: dict[str, Any] = {
    "licenses": [{"id": 4, "name": "Attribution License"}],
    "images": [
        {"id": 20, "file_name": "000020.jpg", "license": 4, "flickr_url": "http://example.org/20"},
        {"id": 3, "file_name": "000003.jpg"},
    ],
    "annotations": [
        {
            "image_id": 20,
            "file_name": "000020.png",
            "segments_info": [
                {"id": 300, "category_id": 1, "iscrowd": 0, "bbox": [1, 0, 2, 2], "area": 3},
                {"id": 70_000, "category_id": 1, "iscrowd": 1, "bbox": [3, 0, 1, 2], "area": 2},
                {"id": 5, "category_id": 187, "iscrowd": 0, "bbox": [0, 1, 2, 1], "area": 2},
            ],
        }
    ],
    "categories": [
        {"id": 1, "name": "person", "isthing": 1},
        {"id": 187, "name": "sky-other-merged", "isthing": 0},
    ],
}


def write_corpus(root: Path, content: dict[str, Any] = CONTENT, split: str = "train2017") -> Path:
    for folder in (root / split, root / "annotations" / f"panoptic_{split}"):
        folder.mkdir(parents=True)
    (root / "annotations" / f"panoptic_{split}.json").write_text(json.dumps(content))
    for name in ("000003.jpg", "000020.jpg"):
        Image.new("RGB", (4, 2)).save(root / split / name)
    Image.fromarray(ids_to_rgb(IDS)).save(root / "annotations" / f"panoptic_{split}" / "000020.png")
    return root


def changed(**changes: Any) -> dict[str, Any]:
    return {**deepcopy(CONTENT), **changes}


def test_images_come_in_order_of_their_ids_with_labels_and_licence(tmp_path: Path) -> None:
    first, second = CocoCorpus(write_corpus(tmp_path)).images()
    assert (first.image_id, first.labels, first.license) == ("3", (), "")
    assert (second.image_id, second.split, second.source) == ("20", "train2017", "coco")
    assert (second.license, second.attribution) == ("Attribution License", "http://example.org/20")
    assert [(label.name, label.source, label.present) for label in second.labels] == [
        ("person", "human", True),
        ("sky-other-merged", "human", True),
    ]


def test_masks_are_the_painted_ids_and_crowds_are_marked(tmp_path: Path) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    image = list(corpus.images())[1]
    regions = corpus.regions(image, (2, 4), "masks")
    for region, number in zip(regions, (300, 70_000, 5), strict=True):
        np.testing.assert_array_equal(region.mask, number == IDS)
    assert [(r.label, r.is_thing, r.is_crowd, r.mask_source) for r in regions] == [
        ("person", True, False, "coco.panoptic"),
        ("person", True, True, "coco.panoptic"),
        ("sky-other-merged", False, False, "coco.panoptic"),
    ]
    assert regions[2].aliases == ("sky-other-merged",)


def test_boxes_are_filled_rectangles(tmp_path: Path) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    region = corpus.regions(list(corpus.images())[1], (2, 4), "boxes")[0]
    assert (region.box, region.box_source, region.mask_source) == ((1.0, 0.0, 3.0, 2.0), "coco.panoptic", "box")
    assert region.mask.tolist() == [[False, True, True, False]] * 2


def test_a_photo_without_annotation_has_no_regions(tmp_path: Path) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    assert corpus.regions(next(corpus.images()), (2, 4), "masks") == []


@pytest.mark.parametrize("folder", ["images/train2017", "train2017"])
def test_photos_and_id_images_are_found_in_either_layout(tmp_path: Path, folder: str) -> None:
    write_corpus(tmp_path)
    (tmp_path / "annotations" / "panoptic_train2017").rename(tmp_path / "panoptic_train2017")
    (tmp_path / "images").mkdir()
    if folder != "train2017":
        (tmp_path / "train2017").rename(tmp_path / folder)
    corpus = CocoCorpus(tmp_path)
    assert len(corpus.regions(list(corpus.images())[1], (2, 4), "masks")) == 3


@pytest.mark.parametrize("split", ["val", "val2017", None])
def test_the_only_split_needs_no_name(tmp_path: Path, split: str | None) -> None:
    assert CocoCorpus(write_corpus(tmp_path, split="val2017"), split).split == "val2017"


def test_an_absent_split_lists_those_present(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)E103 .*'test'.*train2017"):
        CocoCorpus(write_corpus(tmp_path), "test")


def test_a_zip_beside_a_missing_folder_is_pointed_at(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "annotations" / "panoptic_train2017").rename(tmp_path / "elsewhere")
    (tmp_path / "annotations" / "panoptic_train2017.zip").touch()
    with pytest.raises(InputError, match=r"Unpack .*panoptic_train2017\.zip"):
        CocoCorpus(tmp_path)


def test_captions_are_read_when_present(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    captions = {"annotations": [{"image_id": 3, "caption": " A cat. "}, {"image_id": 3, "caption": "Two."}]}
    (tmp_path / "annotations" / "captions_train2017.json").write_text(json.dumps(captions))
    assert next(CocoCorpus(tmp_path).images()).captions == ("A cat.", "Two.")


def test_missing_files_are_warned_about(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "train2017" / "000003.jpg").unlink()
    (tmp_path / "annotations" / "panoptic_train2017" / "000020.png").unlink()
    corpus = CocoCorpus(tmp_path)
    photos, maps = corpus.warnings()
    assert photos.startswith("1 listed photos")
    assert "000003.jpg" in photos
    assert "000020.png" in maps
    (image,) = corpus.images()
    with pytest.raises(ImageError, match=r"000020\.png is not in"):
        corpus.regions(image, (2, 4), "masks")


def test_no_photo_at_all_is_an_error(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    for photo in (tmp_path / "train2017").iterdir():
        photo.unlink()
    with pytest.raises(InputError, match="E101 No images"):
        CocoCorpus(tmp_path)


def test_names_in_the_annotation_cannot_leave_their_folder(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2)).save(tmp_path / "secret.jpg")
    content = changed(images=[*CONTENT["images"], {"id": 9, "file_name": "../../secret.jpg"}])
    corpus = CocoCorpus(write_corpus(tmp_path / "coco", content))
    assert [image.image_id for image in corpus.images()] == ["3", "20"]
    assert "secret.jpg" in corpus.warnings()[0]


@pytest.mark.parametrize(
    "content",
    [
        {},
        changed(images="none"),
        changed(categories=[{"id": 1}]),
        changed(categories=CONTENT["categories"][:1]),
        changed(annotations=[{"image_id": 20, "bbox": [0, 0, 1, 1], "iscrowd": 0, "id": 1, "category_id": 1}]),
        changed(annotations=[{"image_id": 20, "file_name": "a.png", "segments_info": [{"iscrowd": 0, "bbox": "?"}]}]),
    ],
    ids=["empty", "images", "category", "unknown category", "instances", "segment"],
)
def test_other_json_is_refused_with_its_name(tmp_path: Path, content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"panoptic_train2017\.json") as caught:
        CocoCorpus(write_corpus(tmp_path, content))
    assert caught.value.code == "E103"


@pytest.mark.parametrize("size", [(4, 2), (2, 5)])
def test_an_annotation_of_another_size_does_not_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    with pytest.raises(ImageError, match=r"E116 .*000020\.jpg"):
        corpus.regions(list(corpus.images())[1], size, "masks")


@pytest.mark.parametrize("ids", [np.where(IDS == 5, 0, IDS), np.where(IDS == 0, 9, IDS)], ids=["absent", "unlisted"])
def test_ids_must_agree_between_json_and_png(tmp_path: Path, ids: np.ndarray) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    Image.fromarray(ids_to_rgb(ids.astype(np.int32))).save(tmp_path / "annotations/panoptic_train2017/000020.png")
    with pytest.raises(ImageError, match=r"E116 .*000020\.jpg"):
        corpus.regions(list(corpus.images())[1], (2, 4), "masks")


def test_a_grey_id_image_is_refused(tmp_path: Path) -> None:
    corpus = CocoCorpus(write_corpus(tmp_path))
    Image.new("L", (4, 2)).save(tmp_path / "annotations/panoptic_train2017/000020.png")
    with pytest.raises(ImageError, match="no colours"):
        corpus.regions(list(corpus.images())[1], (2, 4), "masks")


def test_suffixes_stay_where_two_classes_would_share_a_name() -> None:
    classes = map_classes(
        [(1, "wall-merged", False), (2, "wall-other", False), (3, "door-stuff", False), (4, "a-other", True)]
    )
    assert [known.name for known in classes.values()] == ["wall-merged", "wall-other", "door", "a-other"]


@pytest.mark.photos
@pytest.mark.parametrize(("split", "regions", "crowds"), [("train", 1111, 6), ("val", 622, 4)])
def test_real_annotations_are_read_completely(photos: Path, split: str, regions: int, crowds: int) -> None:
    corpus = CocoCorpus(photos, split)
    content = json.loads((photos / "annotations" / f"panoptic_{corpus.split}.json").read_text())
    segments = {a["image_id"]: a["segments_info"] for a in content["annotations"]}
    maps = {a["image_id"]: a["file_name"] for a in content["annotations"]}
    found = crowd = 0
    for image in corpus.images():
        masks = corpus.regions(image, read_picture(image.path).size, "masks")
        ids = rgb_to_ids(
            read_annotation(photos / "annotations" / f"panoptic_{corpus.split}" / maps[int(image.image_id)])
        )
        for region, segment in zip(masks, segments[int(image.image_id)], strict=True):
            assert int(region.mask.sum()) == segment["area"]
            assert set(ids[region.mask].tolist()) == {segment["id"]}
        found, crowd = found + len(masks), crowd + sum(region.is_crowd for region in masks)
    assert (found, crowd, corpus.warnings()) == (regions, crowds, [])


@pytest.mark.photos
def test_real_class_names_are_unique_without_their_suffixes(photos: Path) -> None:
    classes = CocoCorpus(photos).classes
    assert (len(classes), sum(known.is_thing for known in classes)) == (133, 80)
    assert len({known.name for known in classes}) == 133
    assert not [known.name for known in classes if known.name.endswith(("-merged", "-other", "-stuff"))]


def test_the_reference_sample_of_the_format_is_read(test_data: Path, tmp_path: Path) -> None:
    sample = test_data / "panoptic_sample" / "sample_data"
    (tmp_path / "annotations").mkdir()
    content = (sample / "panoptic_examples.json").read_text()
    (tmp_path / "annotations" / "panoptic_examples.json").write_text(content)
    (tmp_path / "annotations" / "panoptic_examples").symlink_to(sample / "panoptic_examples")
    (tmp_path / "examples").symlink_to(sample / "input_images")
    corpus = CocoCorpus(tmp_path)
    expected = {str(a["image_id"]): [s["area"] for s in a["segments_info"]] for a in json.loads(content)["annotations"]}
    for image in corpus.images():
        regions = corpus.regions(image, read_picture(image.path).size, "masks")
        assert [int(region.mask.sum()) for region in regions] == expected.pop(image.image_id)
    assert not expected
