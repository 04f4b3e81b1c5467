"""segments.json: for every segment, what it is, why it is called so, and whose pictures said it."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import PurePath
from typing import Any

import numpy as np

from retclip.core.results import Expert, Explanation, Neighbor, SegmentationResult
from retclip.core.rle import encode_regions

SCHEMA = "retclip.segments/1"


def segments_document(result: SegmentationResult) -> dict[str, Any]:
    """The provenance of one image as plain JSON types (schema `retclip.segments/1`).

    What is not known is null; nothing is guessed. Stored segments are named by their 64-bit id written as a decimal
    string, because many JSON readers keep only 53 bits of a number.
    """
    height, width = result.panoptic.ids.shape
    codes = encode_regions(result.panoptic.ids, [explanation.segment.id for explanation in result.explanations])
    return {
        "schema": SCHEMA,
        "image": {
            "file": PurePath(result.image).name,
            "sha256": result.image_sha256,
            "width": width,
            "height": height,
        },
        "run": dict(result.run),
        "segments": [
            _segment(explanation, {"size": [height, width], "counts": code.decode("ascii")})
            for explanation, code in zip(result.explanations, codes, strict=True)
        ],
    }


def _segment(explanation: Explanation, run_lengths: dict[str, Any]) -> dict[str, Any]:
    segment, match = explanation.segment, explanation.match
    return {
        "id": segment.id,
        "label": explanation.label,
        "category_id": segment.category_id,
        "isthing": segment.is_thing,
        "area": segment.area,
        "bbox": list(segment.box),
        "mask": {"rle": run_lengths},
        "proposal": explanation.proposal,
        "score": _number(segment.score),
        "decided_by": explanation.decided_by.replace("-", "_"),
        "scores": _by_expert(explanation.scores),
        "shares": _by_expert(explanation.shares),
        "runner_up": [{"label": label, "score": _number(score)} for label, score in explanation.runner_up],
        "label_match": {
            "requested": match.requested,
            "db_labels": list(match.stored),
            "method": match.method,
            "similarity": _number(match.similarity),
        },
        "neighbors": [_neighbor(neighbor) for neighbor in explanation.neighbors],
        "flags": list(explanation.flags),
    }


def _by_expert(values: Mapping[Expert, float | None]) -> dict[str, float | None]:
    return {expert.replace("-", "_"): _number(value) for expert, value in values.items()}


def _neighbor(neighbor: Neighbor) -> dict[str, Any]:
    stored = neighbor.stored
    return {
        "segment_id": f"{stored.segment_id:016x}",
        "database": neighbor.database or None,
        "distance": _number(neighbor.distance),
        "label": neighbor.label,
        "label_raw": stored.label_raw,
        "label_source": stored.label_source,
        "label_confidence": _number(stored.label_confidence),
        "source": stored.source or None,
        "split": stored.split or None,
        "image_id": stored.image_id,
        "image_uri": stored.image_uri or None,
        "image_sha256": stored.image_sha256 or None,
        "box": [_number(edge) for edge in stored.box],
        "box_source": stored.box_source or None,
        "mask_source": stored.mask_source or None,
        "detector_score": _number(stored.detector_score),
        "mask_iou": _number(stored.mask_iou),
        "prompt_chunk": stored.prompt_chunk or None,
        "license": stored.license or None,
        "attribution": stored.attribution or None,
    }


def _number(value: float | np.floating[Any] | None) -> float | None:
    """Rounded to six digits; None for what is unknown (None, NaN) or has no JSON form."""
    return None if value is None or not isfinite(value) else round(float(value), 6)
