"""What is measured of a masker, on a picture whose answers are known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from retclip.core.masks import MaskSet
from retclip.core.panoptic import ids_to_rgb
from retclip.ports.masking import BoxMasks
from scripts.train_tiny.masker_quality import masker_quality, pairwise_iou

IDS = np.full((48, 64), 1, np.int32)
IDS[10:30, 20:40] = 2


class KnowingMasker:
    """Answers points with the segment they lie in, and boxes with themselves, rounded; a picture has no surprises."""

    def masks(self, pictures, boxes):
        [asked] = boxes
        logits = torch.full((len(asked), 48, 64), -9.0)
        for plane, (x0, y0, x1, y1) in zip(logits, asked.round().int().tolist(), strict=True):
            plane[y0:y1, x0:x1] = 9
        return [BoxMasks(MaskSet(logits, (48, 64), "prompts"), torch.ones(len(asked)))]

    def point_masks(self, picture, points):
        ids = torch.from_numpy(IDS)
        x, y = points.long().unbind(1)
        logits = torch.where(ids == ids[y, x][:, None, None], 9.0, -9.0)
        yield BoxMasks(MaskSet(logits, (48, 64), "prompts"), torch.ones(len(points)))


@pytest.fixture
def data(tmp_path):
    """One picture with a wall and a window, in COCO's layout."""
    annotations = tmp_path / "annotations"
    for folder in (tmp_path / "val2017", annotations / "panoptic_val2017"):
        folder.mkdir(parents=True)
    Image.fromarray(np.stack([IDS * 100] * 3, -1).astype(np.uint8)).save(tmp_path / "val2017" / "0.png")
    Image.fromarray(ids_to_rgb(IDS)).save(annotations / "panoptic_val2017" / "0.png")
    segments = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 2}]
    entry = {"image_id": 0, "file_name": "0.png", "segments_info": segments}
    table = {"images": [{"id": 0, "file_name": "0.png"}], "annotations": [entry]}
    (annotations / "panoptic_val2017.json").write_text(json.dumps(table))
    (tmp_path / "categories.txt").write_text("1\tstuff\twall\n2\tthing\twindow\n")
    return tmp_path


def test_figures_of_a_masker_that_knows_the_answers(data):
    figures = masker_quality(KnowingMasker(), data, most=5)
    assert figures["IoU from exact boxes, things"] == 1
    # The wall's box is the picture, of which the window is no part of the wall.
    assert figures["IoU from exact boxes, stuff"] == pytest.approx(1 - 400 / (48 * 64), abs=1e-4)
    assert 0.5 < figures["IoU from noisy boxes, things"] < 1
    for points in (16, 32):
        assert figures[f"recall of grid {points}, things"] == figures[f"recall of grid {points}, stuff"] == 1
        assert figures[f"proposals of grid {points}"] == 2


def test_overlaps_by_hand():
    masks = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 1]], [[0, 0, 0, 0]]], dtype=torch.bool)
    assert pairwise_iou(masks, masks[:2]).tolist() == [[1, 0], [0, 1], [0, 0]]
    half = torch.tensor([[[1, 0, 1, 0]]], dtype=torch.bool)
    assert pairwise_iou(half, masks[:1]).item() == pytest.approx(1 / 3)
