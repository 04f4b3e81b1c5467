"""The first page of the HTML report: what was found in all pictures, and with which settings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from statistics import median
from typing import Any

from retclip.core.results import Expert, SegmentationResult
from retclip.reports.captions import EXPERT_NAMES, EXPERTS, LOW_CONFIDENCE, one_line, percent
from retclip.reports.markup import Markup, joined, tag
from retclip.reports.palette import category_color

BINS = 20


@dataclass
class Tally:
    """What the overview needs of every picture, gathered while they pass by."""

    images: list[tuple[int, str, int]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    deciders: Counter[Expert] = field(default_factory=Counter)
    segments: Counter[tuple[int, str]] = field(default_factory=Counter)
    areas: defaultdict[tuple[int, str], int] = field(default_factory=lambda: defaultdict(int))
    pixels: int = 0
    seconds: float = 0.0

    def add(self, number: int, result: SegmentationResult) -> None:
        """Count one picture; `number` is its place in the report, from 1."""
        self.images.append((number, result.image, len(result.explanations)))
        self.pixels += result.panoptic.ids.size
        self.seconds += result.seconds
        for explanation in result.explanations:
            key = explanation.segment.category_id, explanation.label
            self.scores.append(explanation.segment.score)
            self.deciders[explanation.decided_by] += 1
            self.segments[key] += 1
            self.areas[key] += explanation.segment.area


def overview(tally: Tally, run: Mapping[str, Any]) -> Markup:
    """The `<header>` with figures, histogram, classes, settings and the list of pictures."""
    cards = [_score_card(tally), _class_card(tally), _settings_card(run)]
    return tag(
        "header",
        tag("h1", "Segmentation report"),
        _figures(tally),
        tag("div", *cards, class_="cards"),
        _contents(tally),
    )


def _figures(tally: Tally) -> Markup:
    pixels = max(1, tally.pixels)
    uncertain = sum(score < LOW_CONFIDENCE for score in tally.scores)
    figures = [
        (str(len(tally.images)), "image" if len(tally.images) == 1 else "images"),
        (str(len(tally.scores)), "segment" if len(tally.scores) == 1 else "segments"),
        (str(len(tally.segments)), "classes found"),
        (f"{median(tally.scores):.2f}" if tally.scores else "–", "median score"),
        (str(uncertain), f"below {LOW_CONFIDENCE:.2f}"),
        (percent(1 - sum(tally.areas.values()) / pixels), "unlabelled"),
        (f"{tally.seconds:.1f} s", "computing"),
    ]
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for value, name in figures), class_="figures")


def _score_card(tally: Tally) -> Markup:
    total = max(1, sum(tally.deciders.values()))
    parts = [tag("span", class_=f"part {e}", style=f"width:{100 * tally.deciders[e] / total:.2f}%") for e in EXPERTS]
    keys = [
        tag("li", tag("span", class_=f"key {e}"), f"{EXPERT_NAMES[e]} ", tag("b", str(tally.deciders[e])))
        for e in EXPERTS
    ]
    return tag(
        "section",
        tag("h2", "Scores"),
        _histogram(tally.scores),
        tag("h3", "Decided by"),
        tag("div", *parts, class_="bar whole", aria_hidden="true"),
        tag("ul", *keys, class_="keys"),
    )


def _histogram(scores: list[float]) -> Markup:
    counts = Counter(min(BINS - 1, int(score * BINS)) for score in scores)
    highest = max(counts.values(), default=1)
    bars = []
    for place in range(BINS):
        height = 92 * counts[place] / highest
        low, high = place / BINS, (place + 1) / BINS
        shape = "weak" if high <= LOW_CONFIDENCE else "firm"
        title = tag("title", f"{low:.2f} to {high:.2f}: {counts[place]}")
        bars.append(
            tag(
                "rect",
                title,
                class_=shape,
                x=place * 16 + 1,
                y=f"{100 - height:.1f}",
                width=14,
                height=f"{height:.1f}",
                rx=1,
            )
        )
    marks = [
        tag("text", f"{tick / 4:g}", x=tick * 80, y=116, text_anchor=anchor)
        for tick, anchor in enumerate(("start", "middle", "middle", "middle", "end"))
    ]
    word = f"Histogram of {len(scores)} final scores from 0 to 1, highest column {highest if scores else 0}"
    ground = tag("line", x1=0, y1=100, x2=320, y2=100)
    scale = tag("text", f"highest column {highest}" if scores else "no segments", x=0, y=2)
    return tag(
        "svg", *bars, ground, scale, *marks, viewBox="0 0 320 120", role="img", aria_label=word, class_="histogram"
    )


def _class_card(tally: Tally) -> Markup:
    rows = []
    for key in sorted(tally.areas, key=lambda key: (-tally.areas[key], key)):
        red, green, blue = category_color(key[0])
        swatch = tag("span", class_="swatch", style=f"background:rgb({red},{green},{blue})")
        rows.append(
            tag(
                "tr",
                tag("th", swatch, one_line(key[1]), scope="row"),
                tag("td", str(tally.segments[key])),
                tag("td", percent(tally.areas[key] / max(1, tally.pixels), 1)),
            )
        )
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Class", "Segments", "Area")))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("section", tag("h2", "Classes found"), tag("div", table, class_="tall", tabindex=0))


def _settings_card(run: Mapping[str, Any]) -> Markup:
    pairs = [joined(tag("dt", one_line(name)), tag("dd", one_line(value, 400))) for name, value in _flat(run, "")]
    return tag(
        "section",
        tag("h2", "Settings and identities"),
        tag("dl", *pairs, class_="settings tall", tabindex=0) if pairs else tag("p", "none given", class_="quiet"),
    )


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Nested settings as lines `fusion alpha`, `0.4`; lists of plain values stay on one line."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} {key}".strip())
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping | list | tuple) for inner in value):
        for place, inner in enumerate(value, start=1):
            yield from _flat(inner, name if len(value) == 1 else f"{name} {place}")
    elif isinstance(value, list | tuple):
        yield name, ", ".join(map(str, value))
    else:
        yield name, "–" if value is None else str(value)


def _contents(tally: Tally) -> Markup:
    if len(tally.images) < 2:
        return Markup("")
    links = [
        tag(
            "li",
            tag("a", one_line(PurePath(image).name, 48), href=f"#image-{number}"),
            tag("span", str(count), class_="number"),
        )
        for number, image, count in tally.images
    ]
    return tag("nav", tag("h2", "Images and their segments"), tag("ol", *links), aria_label="Images")
