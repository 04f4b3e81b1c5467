import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from retclip.adapters.grounding_dino.scores import distinct_boxes, has_area, phrase_scores, picture_boxes


def test_the_mean_asks_for_all_words_and_the_maximum_for_one():
    # [CLS] traffic light . [SEP], and two positions that no token fills; the box shows something in traffic.
    logits = torch.tensor([[-9.0, 2.0, -30.0, -9.0, -9.0, -torch.inf, -torch.inf]])
    assert phrase_scores(logits, [(1, 2)], "max").item() == pytest.approx(0.88, abs=0.005)
    assert phrase_scores(logits, [(1, 2)], "mean").item() == pytest.approx(0.44, abs=0.005)


def test_scores_are_per_query_and_phrase():
    logits = torch.logit(torch.tensor([[0.1, 0.2, 0.4], [0.9, 0.6, 0.8]]))
    torch.testing.assert_close(phrase_scores(logits, [(0,), (1, 2)], "mean"), torch.tensor([[0.1, 0.3], [0.9, 0.7]]))


def test_boxes_are_in_pixels_and_end_at_the_picture():
    shares = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1]])
    boxes = picture_boxes(shares, (100, 200), (80, 200))
    torch.testing.assert_close(boxes[:2], torch.tensor([[50.0, 25, 150, 75], [0, 75, 50, 80]]))
    # The third lies in the margin below the picture.
    assert has_area(boxes).tolist() == [True, True, False]


def test_duplicates_of_a_phrase_lose_to_the_best():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 8]])
    scores = torch.tensor([0.5, 0.9, 0.7, 0.6])
    assert distinct_boxes(boxes, scores, torch.tensor([0, 0, 0, 0]), 0.7).tolist() == [1, 2]
    # Another phrase may overlap that much; but not with the very same box.
    assert distinct_boxes(boxes, scores, torch.tensor([1, 0, 0, 2]), 0.7).tolist() == [1, 2, 0]


def test_half_pixels_count_among_a_thousand_phrases_of_a_large_picture():
    # Two boxes of phrase 999 that overlap by 0.6: rounding to half-pixels would make it 1.
    boxes = torch.tensor([[3990.0, 3990, 3990.5, 3990.5], [3990.0, 3990, 3990.3, 3990.5], [0, 0, 4000, 4000]])
    phrases = torch.tensor([999, 999, 0])
    assert distinct_boxes(boxes, torch.tensor([0.9, 0.8, 0.7]), phrases, 0.7).tolist() == [0, 1, 2]


def _reference(boxes: Tensor, scores: Tensor, phrases: Tensor, nms_iou: float) -> list[int]:
    """Greedy suppression, first within phrases and then across them, as the words say it."""
    iou = box_iou(boxes.double(), boxes.double())
    order = scores.argsort(descending=True, stable=True).tolist()
    for limits in ({True: nms_iou}, {True: 0.9, False: 0.9}):
        kept: list[int] = []
        for row in order:
            rivals = [(k, limits.get(bool(phrases[k] == phrases[row]))) for k in kept]
            if not any(limit is not None and iou[k, row] > limit for k, limit in rivals):
                kept.append(row)
        order = kept
    return order


@given(st.integers(0, 10_000), st.integers(0, 30), st.sampled_from([0.3, 0.7, 1.0]))
def test_suppression_agrees_with_its_definition(seed: int, count: int, nms_iou: float):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, 6, (count, 2), generator=generator).float()
    sides = torch.randint(1, 12, (count, 2), generator=generator).float()
    boxes = torch.cat([corners, corners + sides], 1)
    scores = torch.randperm(count, generator=generator) / max(1, count)
    phrases = torch.randint(0, 3, (count,), generator=generator)
    assert distinct_boxes(boxes, scores, phrases, nms_iou).tolist() == _reference(boxes, scores, phrases, nms_iou)
