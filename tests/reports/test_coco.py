"""COCO exports."""

import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from retclip.core.panoptic import rgb_to_ids
from retclip.reports import coco

MAPS = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(0, 10), st.integers(0, 99))


def read_png(data):
    return np.asarray(Image.open(io.BytesIO(data)))


@given(MAPS, st.integers(0, (1 << 24) - 200))
def test_the_map_comes_back_from_its_png(samples, drawn, offset):
    ids = samples.make_blocks(*drawn)
    ids[ids > 0] += offset
    assert np.array_equal(rgb_to_ids(read_png(coco.panoptic_png(ids))), ids)


@given(MAPS)
def test_areas_and_boxes_equal_the_map(samples, drawn):
    result = samples.make_result(samples.make_blocks(*drawn), samples.make_vocabulary(["a", "b", "c"]))
    image, annotation = coco.panoptic_entry(result, "x.png")
    ids = rgb_to_ids(read_png(coco.panoptic_png(result.panoptic.ids)))
    assert (image["height"], image["width"]) == ids.shape
    assert {info["id"] for info in annotation["segments_info"]} == set(np.unique(ids).tolist()) - {0}
    for info in annotation["segments_info"]:
        mask = ids == info["id"]
        x, y, w, h = info["bbox"]
        assert info["area"] == mask.sum()
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
        assert mask[y].any()
        assert mask[:, x + w - 1].any()


@pytest.mark.parametrize(
    ("name", "expected"), [("a/000000000139.jpg", 139), ("street.png", "street"), ("٣.jpg", "٣"), ("1.5.jpg", "1.5")]
)
def test_image_ids(name, expected):
    assert coco.image_id(name) == expected


def test_the_document_lists_every_class(samples):
    vocabulary = samples.make_vocabulary(["pier", "kayak"])
    result = samples.make_result(samples.make_blocks(9, 9, 2), vocabulary)
    document = json.loads(json.dumps(coco.panoptic_document([coco.panoptic_entry(result, "x.png")], vocabulary)))
    assert [(c["id"], c["name"], c["isthing"]) for c in document["categories"]] == [(10, "pier", 1), (11, "kayak", 0)]
    assert document["annotations"][0]["image_id"] == document["images"][0]["id"]
    assert all(
        info["isthing"] in (0, 1) and info["iscrowd"] == 0 for info in document["annotations"][0]["segments_info"]
    )


@settings(max_examples=20, deadline=None)
@given(MAPS)
def test_instances_load_with_pycocotools(samples, tmp_path_factory, drawn):
    result = samples.make_result(samples.make_blocks(*drawn), samples.make_vocabulary(["a", "b"]))
    path = tmp_path_factory.mktemp("coco") / "instances.json"
    path.write_text(json.dumps(coco.instances_document(result)))
    loaded = COCO(str(path))
    assert len(loaded.anns) == len(result.instances.masks)
    for annotation, mask in zip(loaded.dataset["annotations"], result.instances.masks, strict=True):
        assert np.array_equal(loaded.annToMask(annotation).astype(bool), mask)
        assert annotation["area"] == mask.sum()
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        assert annotation["bbox"] == [int(edge) for edge in box]


def test_empty_instances_are_left_out(samples):
    result = samples.make_result(samples.make_blocks(9, 9, 3), samples.make_vocabulary(["a"]))
    emptied = result.instances.masks.copy()
    emptied[0] = False
    result = dataclasses.replace(result, instances=dataclasses.replace(result.instances, masks=emptied))
    annotations = coco.instances_document(result)["annotations"]
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(emptied)))


@pytest.mark.parametrize(("classes", "mode"), [(255, np.uint8), (256, np.uint16)])
def test_semantic_values_are_columns_plus_one(samples, classes, mode):
    result = samples.make_result(
        samples.make_blocks(20, 30, 5), samples.make_vocabulary([f"c{i}" for i in range(classes)])
    )
    semantic = result.semantic.copy()
    semantic[0, 0] = classes - 1
    values = read_png(coco.semantic_png(dataclasses.replace(result, semantic=semantic)))
    assert values.dtype == mode
    assert np.array_equal(values.astype(np.int64) - 1, semantic)
    listed = coco.semantic_document(result)["classes"]
    assert listed[classes - 1] == {
        "value": classes,
        "category_id": 10 + classes - 1,
        "name": f"c{classes - 1}",
        "isthing": int((classes - 1) % 2 == 0),
    }
