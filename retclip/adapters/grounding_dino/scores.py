"""From what the network says about tokens to boxes with one phrase each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, clip_boxes_to_image, nms

# Queries of two prompts that found one thing differ by a few pixels; things of their own this close do not occur.
_SAME_BOX_IOU = 0.9


def phrase_scores(logits: Tensor, tokens: Sequence[Sequence[int]], span: Literal["mean", "max"]) -> Tensor:
    """How well every query fits every phrase.

    The maximum calls a box that shows a truck in traffic a `traffic light`; the mean asks all words to fit.

    Args:
        logits: (Q, T), -inf at positions without a token.
        tokens: per phrase the positions of its tokens, at least one.
        span: which statistic of the tokens' probabilities.

    Returns:
        (Q, P) in [0, 1].
    """
    probabilities = logits.float().sigmoid()
    columns = [probabilities[:, list(positions)] for positions in tokens]
    return torch.stack([values.mean(1) if span == "mean" else values.amax(1) for values in columns], 1)


def picture_boxes(boxes: Tensor, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Centre x, centre y, width, height as shares of the canvas (N, 4) -> x0, y0, x1, y1 in pixels of the picture.

    Args:
        boxes: (N, 4).
        canvas: (height, width) in pixels of what the network saw; the picture lies in its upper left corner.
        size: (height, width) of the picture, to which boxes are clipped.
    """
    height, width = canvas
    pixels = box_convert(boxes.float(), "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    clipped: Tensor = clip_boxes_to_image(pixels, size)
    return clipped


def has_area(boxes: Tensor) -> Tensor:
    """(N, 4) x0, y0, x1, y1 -> (N,) whether x0 < x1 and y0 < y1."""
    return (boxes[:, 2:] > boxes[:, :2]).all(1)


def distinct_boxes(boxes: Tensor, scores: Tensor, phrases: Tensor, nms_iou: float) -> Tensor:
    """Rows of the boxes that are not duplicates of better ones, best first.

    Boxes of one phrase are duplicates above `nms_iou`, boxes of different phrases only when they are almost the
    same: the database holds one class per box (RetCLIP, section 3.1).

    Args:
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
        scores: (N,).
        phrases: (N,) int64.
        nms_iou: in (0, 1].
    """
    # torchvision tells phrases apart by shifting their boxes: in float32 a thousand phrases of a large picture would
    # be shifted so far that half-pixels are lost.
    boxes, scores = boxes.double(), scores.double()
    rows: Tensor = batched_nms(boxes, scores, phrases, nms_iou)
    return rows[nms(boxes[rows], scores[rows], _SAME_BOX_IOU)]
