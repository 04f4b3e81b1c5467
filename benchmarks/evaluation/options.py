"""What every option beyond the paper does on real photos, alone and together, with 95 % bootstrap intervals.

    python benchmarks/evaluation/options.py --root $RETCLIP_TEST_DATA/coco_panoptic \
        --texts $RETCLIP_TEST_DATA/clip_text --home DIR --json options.json

Train photos are the database, annotated masks of the val photos the queries (run reports.py first: it observes them).
Two tables: retrieval alone, and with a stand-in text expert (stand_in.py, NOT CLIP), where each half of the classes is
taken out of the database in turn and both stored and absent classes count. `tuned` is what `sweep` picks on the
database's own segments; the queries take no part in it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from reports import DATABASE, PRESET, build
from stand_in import RidgeText, class_texts, cross_fitted

from retclip.evaluation.datasets import open_evaluation_set
from retclip.evaluation.held_out import HeldOut, OwnPicture, from_database, from_observations, without_columns
from retclip.evaluation.reliability import doubtful, fit_reliability, nearest_is_right
from retclip.evaluation.tuning import Candidate, Ground, best_of, count_labels, predict_columns, sweep, with_fit
from retclip.presets import FusionSettings, Preset, RetrievalSettings, load_preset
from retclip.query.matching import match_labels
from retclip.query.observations import ObservationStore
from retclip.query.scoring import AskedClasses
from retclip.shards import Database, open_database

RESAMPLES = 1000
PAPER = RetrievalSettings(k=32, rule="minmax", transform="none")
RETRIEVAL = {
    "paper (min-max, raw keys)": PAPER,
    "centred keys": replace(PAPER, transform="centre"),
    "standardised keys": replace(PAPER, transform="standardise"),
    "whitened keys": replace(PAPER, transform="whiten"),
    "similarity-weighted voting": replace(PAPER, rule="voting"),
    "3 of a class (balanced top-k)": replace(PAPER, per_class_k=3),
    "balanced top-k, mean of a class": replace(PAPER, per_class_k=3, aggregate="mean"),
    "min-max over the picture": replace(PAPER, minmax="image"),
    "10 classes a picture (pruning)": replace(PAPER, prune_classes=10),
    "voting, centred": replace(PAPER, rule="voting", transform="centre"),
    "voting, standardised": replace(PAPER, rule="voting", transform="standardise"),
    "voting, centred, pruning": replace(PAPER, rule="voting", transform="centre", prune_classes=10),
}
FUSION = {
    "gamma by class": {"gamma_by_class": True},
    "gamma by query (reliability)": {"reliability": (0.0, 0.0)},
    "gamma by class and query": {"gamma_by_class": True, "reliability": (0.0, 0.0)},
}


@dataclass(frozen=True)
class Bench:
    """Queries (val) and the database's own segments (train), each with the database that answers them."""

    queries: Ground
    train: Ground
    texts: torch.Tensor


def per_picture(part: HeldOut, predicted: np.ndarray, is_thing: np.ndarray) -> np.ndarray:
    """(I, 4, C) iou, tp, fp, fn of every picture."""
    tables = []
    for number in range(len(part.digests)):
        chosen = part.image == number
        alone = replace(part.rows(chosen), image=np.zeros(int(chosen.sum()), np.int64), digests=("",))
        counts = count_labels(alone, predicted[chosen], is_thing)
        tables.append(np.stack([counts.iou, counts.tp, counts.fp, counts.fn]))
    return np.stack(tables)


def predict(ground: Ground, preset: Preset, hidden: np.ndarray, fit_on: Ground | None = None) -> np.ndarray:
    """(N,) predicted columns with some classes taken out of the database; a reliability is fitted on `fit_on`."""
    labels = without_columns(ground.labels, hidden)
    if fit_on is not None:
        own = fit_on.own.hits(fit_on.held_out, labels, preset.retrieval)
        fitted = fit_reliability(*nearest_is_right(own, fit_on.held_out.column))
        preset = replace(preset, fusion=replace(preset.fusion, reliability=fitted))
    stored = np.isin(np.arange(len(hidden)), list(labels.column.values()))
    asked = AskedClasses(torch.from_numpy(stored), torch.from_numpy(ground.seen))
    hits = ground.own.hits(ground.held_out, labels, preset.retrieval)
    return predict_columns(ground.held_out, hits, asked, preset)


def quality(weights: np.ndarray, tables: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """(R,) mean PQ over chosen classes for R weightings (R, I) of the pictures' tables (I, 4, C)."""
    total = np.einsum("ri,ikc->rkc", weights.astype(float), tables[:, :, chosen])
    size = total[:, 1] + 0.5 * (total[:, 2] + total[:, 3])
    pq = np.divide(total[:, 0], size, out=np.full_like(size, np.nan), where=size > 0)
    return np.nanmean(pq, axis=1)


def weightings(pictures: int) -> np.ndarray:
    """(1 + RESAMPLES, I): every picture once, then draws with replacement."""
    draws = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)
    return np.concatenate([np.ones((1, pictures), draws.dtype), draws])


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Percent: the figure and its 95 % bounds."""
    low, high = np.percentile(values[1:], (2.5, 97.5))
    return 100 * float(values[0]), 100 * float(low), 100 * float(high)


def retrieval_table(bench: Bench) -> list[dict]:
    """Retrieval as the only expert, everything stored."""
    ground = bench.queries
    nothing = np.zeros(len(ground.is_thing), bool)
    weights = weightings(len(ground.held_out.digests))
    base, rows = None, []
    for name, retrieval in [*RETRIEVAL.items(), ("exemplar cleaning", PAPER)]:
        used = cleaned(bench) if name == "exemplar cleaning" else ground
        predicted = predict(used, Preset("try", retrieval=retrieval), nothing)
        values = quality(weights, per_picture(ground.held_out, predicted, ground.is_thing), ~nothing)
        base = values if base is None else base
        label = 100 * float((predicted == ground.held_out.column).mean())
        difference = interval(values - base)
        rows.append({"option": name, "pq": interval(values), "difference": difference, "label": label})
    return rows


def cleaned(bench: Bench) -> Ground:
    """The queries' ground with doubtful exemplars silenced."""
    train = bench.train
    hits = train.own.hits(train.held_out, train.labels, replace(PAPER, k=10, transform="centre"))
    marked = doubtful(hits, train.held_out.column, train.held_out.image)
    database = open_database(DATABASE)
    ids = stored_ids(database, train)
    print(f"exemplar cleaning: {int(marked.sum())} of {len(marked)} exemplars have no neighbour of their class")
    own = OwnPicture(database, bench.queries.held_out.digests, frozenset(ids[marked].tolist()))
    return replace(bench.queries, own=own)


def stored_ids(database: Database, train: Ground) -> np.ndarray:
    """Segment ids in the order of `from_database`."""
    number = {digest: place for place, digest in enumerate(train.held_out.digests)}
    found = [
        (number[s.image_sha256], place, s.segment_id)
        for place, (_, _, s) in enumerate(database.iter_segments(sorted(train.labels.column)))
        if not s.is_crowd
    ]
    return np.array([entry[2] for entry in sorted(found)], np.uint64)


def text_table(bench: Bench, tuned: Preset) -> list[dict]:
    """With the stand-in text expert; each half of the classes is absent once."""
    ground = bench.queries
    weights = weightings(len(ground.held_out.digests))
    voting = replace(PAPER, rule="voting", transform="centre")
    trials: dict[str, Preset] = {
        "text alone (gamma 0)": Preset("try", retrieval=PAPER, fusion=FusionSettings(gamma=0.0)),
        "paper (gamma 0.3)": Preset("try", retrieval=PAPER),
        "voting, centred (gamma 0.3)": Preset("try", retrieval=voting),
        **{
            f"{start}{name}": Preset("try", retrieval=retrieval, fusion=FusionSettings(**changes))
            for start, retrieval in (("paper + ", PAPER), ("voting, centred + ", voting))
            for name, changes in FUSION.items()
        },
        "voting, centred + pruning": Preset("try", retrieval=replace(voting, prune_classes=10)),
        "tuned on the database": tuned,
    }
    base, rows = None, []
    for name, preset in trials.items():
        values = []
        for hidden in ground.folds():
            shown = np.isin(np.arange(len(hidden)), list(ground.labels.column.values())) & ~hidden
            fit_on = bench.train if preset.fusion.reliability else None
            tables = per_picture(ground.held_out, predict(ground, preset, hidden, fit_on), ground.is_thing)
            values.append([quality(weights, tables, shown), quality(weights, tables, hidden)])
        stored, absent = np.mean(values, axis=0)
        both = 2 * stored * absent / np.maximum(stored + absent, 1e-12)
        base = both if name.startswith("paper (") else base
        row = {"option": name, "stored": interval(stored), "absent": interval(absent), "harmonic": interval(both)}
        rows.append(row | ({"difference": interval(both - base)} if base is not None else {}))
    return rows


def tune(bench: Bench) -> tuple[Preset, dict]:
    """The sweep on the database's own segments: the winner and what it cost."""
    grid = itertools.product(
        ("none", "centre", "standardise", "whiten"), ("minmax", "voting"), (8, 32), (0.02, 0.05, 0.1),
        (0.1, 0.3, 0.5, 0.7, 0.9), (False, True), (False, True),
    )  # fmt: skip
    candidates = [
        Candidate(
            Preset(
                "tuned",
                retrieval=RetrievalSettings(k=k, rule=rule, transform=transform, temperature=temperature),
                fusion=FusionSettings(gamma=gamma, gamma_by_class=by_class),
            ),
            fit,
        )
        for transform, rule, k, temperature, gamma, by_class, fit in grid
        if rule == "voting" or temperature == 0.05
    ]
    start = time.perf_counter()
    outcomes = sweep(bench.train, candidates, lambda done, total: None)
    seconds = time.perf_counter() - start
    best = best_of(outcomes)
    facts = {"settings": len(candidates), "pictures": len(bench.train.held_out.digests), "seconds": seconds,
             "stored": 100 * best.stored, "absent": 100 * best.absent, "harmonic": 100 * best.harmonic}  # fmt: skip
    return with_fit(bench.train, best), facts


def prepare(root: Path, texts: Path, home: Path) -> tuple[Bench, Bench]:
    """The bench without and with the text expert."""
    database = open_database(DATABASE)
    dataset = open_evaluation_set("coco-panoptic", root, "val")
    folder = home / "reports" / "given" / "observations-given"
    store = ObservationStore(folder, json.loads((folder / "identity.json").read_text()))
    queries = from_observations(dataset, store)
    labels = match_labels(dataset.vocabulary, database.classes, None, load_preset(str(PRESET)).retrieval.label_match)
    own = from_database(database, labels, 10_000)
    is_thing = np.array([category.is_thing for category in dataset.vocabulary])
    seen = np.zeros(len(is_thing), bool)
    grounds = [Ground(part, OwnPicture(database, part.digests), labels, is_thing, seen) for part in (queries, own)]
    table = class_texts(texts / "zegclip_vitb16", dataset.vocabulary)
    clip, scale = cross_fitted(table, own)
    fitted = RidgeText(table, own.observation.keys, own.column)
    asked = (scale * fitted.cosines(queries.observation.keys)).softmax(dim=1)
    right = 100 * (asked.argmax(dim=1).numpy() == queries.column).mean()
    print(f"stand-in text expert: scale {scale:.0f}, {right:.1f} % of the queries right")
    parts = (replace(queries, observation=replace(queries.observation, clip=asked)),
             replace(own, observation=replace(own.observation, clip=clip)))  # fmt: skip
    with_text = [replace(ground, held_out=part) for ground, part in zip(grounds, parts, strict=True)]
    return Bench(*grounds, table), Bench(*with_text, table)


def show(rows: list[dict], keys: tuple[str, ...]) -> None:
    """A table with value and bounds."""
    print("\n" + f"{'option':<46}" + "".join(f"{key:>24}" for key in keys))
    for row in rows:
        print(f"{row['option']:<46}" + "".join(f"{shown(row.get(key)):>24}" for key in keys))


def shown(value: float | tuple[float, float, float] | None) -> str:
    """A figure, with its bounds where it has some."""
    if value is None or isinstance(value, float):
        return "" if value is None else f"{value:.1f}"
    return "{:.1f} [{:.1f}, {:.1f}]".format(*value)


def main() -> None:
    """Print both tables and the tuning result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="COCO panoptic folder")
    parser.add_argument("--texts", type=Path, required=True, help="folder with zegclip_vitb16")
    parser.add_argument("--home", type=Path, required=True, help="the folder that reports.py filled")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    build(options.root, options.home)
    plain, with_text = prepare(options.root, options.texts, options.home)
    alone = retrieval_table(plain)
    show(alone, ("pq", "difference", "label"))
    tuned, facts = tune(with_text)
    print(f"\ntuned: {facts}\n{tuned.retrieval}\n{tuned.fusion}")
    both = text_table(with_text, tuned)
    show(both, ("stored", "absent", "harmonic", "difference"))
    if options.json:
        found = {"retrieval": vars(tuned.retrieval), "fusion": vars(tuned.fusion)}
        document = {"retrieval_alone": alone, "with_stand_in_text": both, "tuning": facts, "tuned": found}
        options.json.write_text(json.dumps(document, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
