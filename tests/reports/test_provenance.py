"""segments.json."""

import dataclasses
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.rle import decode_mask
from retclip.reports.provenance import segments_document

MAPS = st.tuples(st.integers(1, 50), st.integers(1, 50), st.integers(0, 8), st.integers(0, 99))


def strict_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


@given(MAPS)
def test_masks_areas_and_boxes_equal_the_map(samples, drawn):
    result = samples.make_result(samples.make_blocks(*drawn), samples.make_vocabulary(["a", "b"]))
    document = strict_json(segments_document(result))
    assert document["schema"] == "retclip.segments/1"
    rebuilt = np.zeros_like(result.panoptic.ids)
    for entry in document["segments"]:
        mask = decode_mask(entry["mask"]["rle"]["counts"].encode(), tuple(entry["mask"]["rle"]["size"]))
        assert mask.sum() == entry["area"]
        rebuilt[mask] = entry["id"]
    assert np.array_equal(rebuilt, result.panoptic.ids)


def test_the_unknown_is_null(samples):
    result = samples.make_result(samples.make_blocks(20, 20, 4), samples.make_vocabulary(["a"]), seed=1)
    explained = result.explanations[0]
    stored = samples.make_stored((1 << 64) - 1, "pier", license="", attribution="", source="")
    neighbor = dataclasses.replace(explained.neighbors[0], stored=stored)
    explained = dataclasses.replace(
        explained, neighbors=(neighbor,), scores={"retrieval": None, "clip": 0.5, "in-vocab": float("nan")}
    )
    result = dataclasses.replace(result, explanations=(explained, *result.explanations[1:]))
    entry = strict_json(segments_document(result))["segments"][0]
    assert entry["scores"] == {"retrieval": None, "clip": 0.5, "in_vocab": None}
    found = entry["neighbors"][0]
    assert found["segment_id"] == "ffffffffffffffff"
    assert found["label_raw"] == "pier, wharf"
    for name in ("license", "attribution", "source", "detector_score", "mask_iou", "prompt_chunk"):
        assert found[name] is None


def test_the_run_is_passed_on_and_the_path_is_not(samples):
    result = samples.make_result(
        samples.make_blocks(5, 5, 1), samples.make_vocabulary(["a"]), image="/secret/place/x.jpg"
    )
    document = strict_json(segments_document(result))
    assert document["run"] == samples.RUN
    assert document["image"] == {"file": "x.jpg", "sha256": "cd" * 32, "width": 5, "height": 5}
    assert "secret" not in json.dumps(document)
