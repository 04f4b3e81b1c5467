"""Results refuse parts that do not belong together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from retclip.core.panoptic import PanopticMap, Segment
from retclip.core.results import Explanation, Instances, LabelMatch, SegmentationResult
from retclip.core.vocabulary import Vocabulary

SEGMENTS = tuple(Segment(n, 0, True, 0.5, 1, (0, 0, 1, 1)) for n in (1, 2))
NOTHING = Instances(np.zeros((0, 1, 2), bool), np.zeros(0, np.int64), np.zeros(0, np.float32))


def explanation(segment: Segment) -> Explanation:
    match = LabelMatch("cat", ("cat",), "name", 1.0)
    return Explanation(segment, "cat", 0, {}, "retrieval", {}, (), match, (), ())


RESULT = SegmentationResult(
    image="a.png",
    image_sha256="0" * 64,
    panoptic=PanopticMap(np.array([[1, 2]], np.int32), SEGMENTS),
    explanations=tuple(map(explanation, SEGMENTS)),
    semantic=np.zeros((1, 2), np.int32),
    instances=NOTHING,
    vocabulary=Vocabulary.from_names("v", ["cat"]),
    run={},
    seconds=0.0,
)


def test_explanations_follow_the_segments() -> None:
    for wrong in (RESULT.explanations[:1], RESULT.explanations[::-1], (*RESULT.explanations, explanation(SEGMENTS[0]))):
        with pytest.raises(ValueError, match="one per segment"):
            replace(RESULT, explanations=wrong)


def test_semantic_map_has_the_size_of_the_panoptic_map() -> None:
    with pytest.raises(ValueError, match="semantic"):
        replace(RESULT, semantic=np.zeros((2, 1), np.int32))


def test_instances_have_one_length() -> None:
    with pytest.raises(ValueError, match="equal lengths"):
        replace(NOTHING, score=np.zeros(1, np.float32))
    with pytest.raises(ValueError, match=r"Instances\.masks"):
        replace(NOTHING, masks=np.zeros((0, 2), bool))
