"""A tally as plain JSON: figures in percent, per class and for seen and unseen ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.evaluation.bootstrap import Figures, Interval, bootstrap
from retclip.evaluation.class_groups import harmonic_mean
from retclip.evaluation.panoptic_quality import PanopticResult, Quality
from retclip.evaluation.tally import Tally

SCHEMA = "retclip.evaluation/1"
_PAIRS = 20
_WORST = 20


def figures_document(tally: Tally, seen: npt.NDArray[np.bool_], resamples: int) -> dict[str, Any]:
    """Every figure of a run.

    Args:
        seen: (C,) bool, the seen list.
        resamples: of the bootstrap.

    Returns:
        Percentages (None where nothing can be averaged). `pq`, `sq`, `rq` and `map` are None for semantic sets.
    """
    panoptic = tally.panoptic() if tally.kind == "panoptic" else None
    precision = tally.precision.result() if tally.precision is not None else None
    semantic = tally.confusion.result()
    ap = _by_column(tally, precision.ap) if precision is not None else np.full(len(tally.vocabulary), np.nan)
    overall: Mapping[str, float | None] = {
        "miou": percent(semantic.miou),
        "fwiou": percent(semantic.fwiou),
        "macc": percent(semantic.macc),
        "pacc": percent(semantic.pacc),
        "map": percent(precision.mean) if precision is not None and precision.mean >= 0 else None,
        "ap50": percent(precision.stats[1]) if precision is not None and precision.stats[1] >= 0 else None,
        "ece": percent(tally.calibration.error()),
    }
    return {
        "schema": SCHEMA,
        **(_quality(panoptic.all) if panoptic else dict.fromkeys(("pq", "sq", "rq", "classes"))),
        **overall,
        "label_accuracy": _label_accuracy(tally),
        "things": _quality(panoptic.things) if panoptic else None,
        "stuff": _quality(panoptic.stuff) if panoptic else None,
        **_seen_unseen(tally, panoptic, ap, seen),
        "intervals": _intervals(bootstrap(tally.rows, tally.is_thing, resamples), panoptic is not None),
        "per_class": _per_class(tally, panoptic, ap, seen),
        "confusions": _confusions(tally),
        "worst_images": _worst(tally),
        "calibration": [{"count": b.count, "score": b.score, "accuracy": b.accuracy} for b in tally.calibration.bins()],
        "images": len(tally.rows),
    }


def percent(value: float) -> float | None:
    """A fraction as a percentage with four digits behind the point; None for NaN, which JSON cannot say."""
    return None if math.isnan(value) else round(100 * value, 4)


def _quality(quality: Quality) -> dict[str, Any]:
    return {
        "pq": percent(quality.pq),
        "sq": percent(quality.sq),
        "rq": percent(quality.rq),
        "classes": quality.n,
    }


def _by_column(tally: Tally, ap: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(C,) AP by column of the vocabulary, NaN for stuff and for things without an annotated object."""
    values = np.full(len(tally.vocabulary), np.nan)
    values[np.flatnonzero(tally.is_thing)] = np.where(ap >= 0, ap, np.nan)
    return values


def _seen_unseen(
    tally: Tally, panoptic: PanopticResult | None, ap: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """`seen`, `unseen` and `harmonic`, each with pq, map and miou."""
    semantic = tally.confusion.result()
    groups: dict[str, dict[str, float]] = {}
    for name, chosen in (("seen", seen), ("unseen", ~seen)):
        defined = ap[chosen & ~np.isnan(ap)]
        groups[name] = {
            "pq": panoptic.mean(chosen).pq if panoptic else math.nan,
            "map": float(defined.mean()) if len(defined) else math.nan,
            "miou": semantic.mean(chosen),
        }
    groups["harmonic"] = {
        key: harmonic_mean(groups["seen"][key], groups["unseen"][key]) for key in ("pq", "map", "miou")
    }
    return {name: {key: percent(value) for key, value in group.items()} for name, group in groups.items()}


def _per_class(
    tally: Tally, panoptic: PanopticResult | None, ap: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]
) -> list[dict[str, Any]]:
    """One row per class that occurs in truth or prediction."""
    iou, counts = tally.confusion.result().iou, tally.quality.counts
    rows = []
    for column, category in enumerate(tally.vocabulary):
        if not (counts.tp[column] + counts.fp[column] + counts.fn[column]) and math.isnan(iou[column]):
            continue
        row = {"id": category.id, "name": category.name, "isthing": int(category.is_thing), "seen": bool(seen[column])}
        if panoptic:
            row |= {key: percent(float(getattr(panoptic, key)[column])) for key in ("pq", "sq", "rq")}
            row |= {key: int(getattr(counts, key)[column]) for key in ("tp", "fp", "fn")}
            row["map"] = percent(float(ap[column]))
        rows.append({**row, "miou": percent(float(iou[column]))})
    return rows


def _label_accuracy(tally: Tally) -> float | None:
    placed = sum(row.placed for row in tally.rows)
    return percent(sum(row.named for row in tally.rows) / placed) if placed else None


def _confusions(tally: Tally) -> list[dict[str, Any]]:
    names = tally.vocabulary.names
    return [
        {"true": names[true], "predicted": names[predicted], "count": count}
        for (true, predicted), count in sorted(tally.mistaken.items(), key=lambda item: (-item[1], item[0]))[:_PAIRS]
    ]


def _worst(tally: Tally) -> list[dict[str, Any]]:
    ranked = sorted((row for row in tally.rows if not math.isnan(row.pq)), key=lambda row: (row.pq, row.image_id))
    return [
        {"image_id": row.image_id, "pq": percent(row.pq), "placed": row.placed, "named": row.named}
        for row in ranked[:_WORST]
    ]


def _intervals(figures: Figures, is_panoptic: bool) -> dict[str, list[float | None] | None]:
    """95 % bounds in percent."""
    return {
        "pq": _bounds(figures.pq) if is_panoptic else None,
        "miou": _bounds(figures.miou),
        "label_accuracy": _bounds(figures.label),
    }


def _bounds(interval: Interval) -> list[float | None]:
    return [percent(interval.low), percent(interval.high)]
