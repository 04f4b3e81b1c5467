"""The demo as one HTML file: what was typed, and what the same objects were called after every step, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retclip.core.files import write_bytes
from retclip.reports.captions import one_line
from retclip.reports.html_image import Gallery
from retclip.reports.markup import Markup, joined, tag

EXEMPLARS_SHOWN = 3
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:88rem;padding:0 1rem}
:root{color-scheme:light dark}table{border-collapse:collapse;margin:0 0 1.5rem}
th,td{text-align:left;padding:.3rem .8rem;vertical-align:top}tr+tr{border-top:1px solid #8884}
td.number{text-align:right;font-variant-numeric:tabular-nums}
pre{background:#8882;padding:.6rem .8rem;white-space:pre-wrap}
.right{color:#00805a;font-weight:600}.wrong{color:#c43c00;font-weight:600}.quiet{opacity:.75;font-size:13px}
table.steps td,table.steps th{width:17rem;padding:.3rem .4rem}table.steps img{width:100%;border-radius:4px}
.thumb{display:inline-block;width:72px;height:72px;background:#8882 center/contain no-repeat}
figure{display:inline-block;margin:0 .6rem 0 0;width:86px}figcaption{font-size:11px;overflow-wrap:anywhere}"""


@dataclass(frozen=True)
class Exemplar:
    """A stored segment behind a label; origin: source and picture, distance: cosine, in [0, 2]."""

    segment_id: int
    label: str
    origin: str
    distance: float


@dataclass(frozen=True)
class Naming:
    """What an object that is known to be there is called.

    Attributes:
        picture: stem of its file; truth: its class.
        label: class of the segment that covers most of it, empty where none does; score in [0, 1].
        decided_by: the expert with the largest share, as people read it; empty without a segment.
        exemplars: nearest stored segments, nearest first.
    """

    picture: str
    truth: str
    label: str
    score: float
    decided_by: str
    exemplars: tuple[Exemplar, ...]

    @property
    def right(self) -> bool:
        """The object is called what it is."""
        return self.label == self.truth


@dataclass(frozen=True)
class Measured:
    """One version of the database.

    Attributes:
        pq: panoptic quality in percent by group of classes, None where it is not defined.
        namings: of the shown objects, in a fixed order.
        overlays: address (`data:`) of the overlay of each shown picture, by stem.
    """

    version: int
    pq: Mapping[str, float | None]
    namings: tuple[Naming, ...]
    overlays: Mapping[str, str]


@dataclass(frozen=True)
class Chapter:
    """One step: what was typed, what it did, how long it took, and how good the database was afterwards."""

    title: str
    commands: tuple[str, ...]
    remarks: tuple[str, ...]
    seconds: float
    measured: Measured | None


@dataclass(frozen=True)
class Story:
    """All of a demo.

    Attributes:
        intro: what it is about.
        chapters: the steps.
        photos: address (`data:`) of the picture of each shown object, in the order of the namings.
        expectations: claims, and whether they held.
        advice: commands, and what they are for.
        seconds, peak_bytes: what it took.
    """

    intro: str
    chapters: tuple[Chapter, ...]
    photos: tuple[str, ...]
    expectations: tuple[tuple[str, bool], ...]
    advice: tuple[tuple[str, str], ...]
    seconds: float
    peak_bytes: int

    @property
    def measured(self) -> list[tuple[Chapter, Measured]]:
        """Chapters that end with a measurement."""
        return [(chapter, chapter.measured) for chapter in self.chapters if chapter.measured is not None]


def write_demo_page(path: Path, story: Story, thumbnail: Callable[[int], bytes | None]) -> Path:
    """Write the page; it needs no other file and asks nothing of the network.

    Args:
        path: the file to write; it appears whole or not at all.
        story: what to tell.
        thumbnail: encoded picture of a stored segment by its id, or None.

    Raises:
        InputError: E131 if the file cannot be written.
        ResourceError: E401 if the disk is full.
    """
    gallery = Gallery(thumbnail)
    body = joined(
        tag("h1", "RetCLIP: taught by adding examples, not by training"),
        tag("p", story.intro),
        tag("p", f"{story.seconds:.0f} seconds, at most {story.peak_bytes / 2**30:.2f} GiB of memory.", class_="quiet"),
        tag("h2", "Step by step"),
        _summary(story),
        tag("h2", "What was hoped for, and what came"),
        tag("ul", *(_expectation(claim, holds) for claim, holds in story.expectations)),
        tag("h2", "The same objects after every step"),
        _gallery_of_steps(story, gallery),
        tag("h2", "What was typed"),
        *(_chapter(number, chapter) for number, chapter in enumerate(story.chapters, start=1)),
        tag("h2", "What to try next"),
        *(joined(tag("p", why), tag("pre", command)) for command, why in story.advice),
    )
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", "retclip demo"),
        tag("style", Markup(_STYLE + "\n" + gallery.stylesheet())),
    )
    page = "<!doctype html>\n" + tag("html", tag("head", head), tag("body", body), lang="en")
    return write_bytes(path, page.encode("utf-8", errors="replace"))


def summary_rows(story: Story) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table that sums up a story; heads of numbers end in a blank."""
    first = story.measured[0][1]
    objects = _first_of_each_class(first.namings)
    heads = ["step", "version ", *(f"PQ {group} " for group in first.pq)]
    heads += [f"{first.namings[place].truth} in {first.namings[place].picture}" for place in objects]
    rows = []
    for chapter, measured in story.measured:
        quality = ["-" if value is None else f"{value:.1f}" for value in measured.pq.values()]
        called = [_called(measured.namings[place]) for place in objects]
        rows.append([chapter.title, str(measured.version), *quality, *called, f"{chapter.seconds:.1f}"])
    return [*heads, "seconds "], rows


def _first_of_each_class(namings: Sequence[Naming]) -> list[int]:
    truths = [naming.truth for naming in namings]
    return [truths.index(truth) for truth in dict.fromkeys(truths)]


def _called(naming: Naming) -> str:
    return f"{one_line(naming.label)} {naming.score:.2f}" if naming.label else "nothing"


def _summary(story: Story) -> Markup:
    heads, rows = summary_rows(story)
    kinds = ["number" if head.endswith(" ") else False for head in heads]
    cells = [[tag("td", text, class_=kind) for text, kind in zip(row, kinds, strict=True)] for row in rows]
    return tag("table", tag("tr", *(tag("th", head.strip()) for head in heads)), *(tag("tr", *row) for row in cells))


def _expectation(claim: str, holds: bool) -> Markup:
    return tag("li", f"{claim}: ", tag("span", "yes" if holds else "no", class_="right" if holds else "wrong"))


def _gallery_of_steps(story: Story, gallery: Gallery) -> Markup:
    """A row per shown object: the object, then a column per measured step."""
    steps = story.measured
    heads = ["The object in full light", *(chapter.title for chapter, _ in steps)]
    rows = [
        tag("tr", _object_cell(naming, photo), *(_step_cell(measured, place, gallery) for _, measured in steps))
        for place, (naming, photo) in enumerate(zip(steps[0][1].namings, story.photos, strict=True))
    ]
    return tag("table", tag("tr", *(tag("th", head, scope="col") for head in heads)), *rows, class_="steps")


def _object_cell(naming: Naming, photo: str) -> Markup:
    said = f"A {naming.truth} in {naming.picture}"
    return tag("td", tag("img", src=photo, alt=said), tag("div", said))


def _step_cell(measured: Measured, place: int, gallery: Gallery) -> Markup:
    naming = measured.namings[place]
    said = tag("span", _called(naming), class_="right" if naming.right else "wrong")
    told = joined("It is called ", said, tag("span", f" {naming.decided_by}", class_="quiet"))
    alt = f"Segments of {naming.picture}; the {naming.truth} is called {_called(naming)}"
    exemplars = (_exemplar(exemplar, gallery) for exemplar in naming.exemplars[:EXEMPLARS_SHOWN])
    return tag("td", tag("img", src=measured.overlays[naming.picture], alt=alt), tag("div", told), *exemplars)


def _exemplar(exemplar: Exemplar, gallery: Gallery) -> Markup:
    style = gallery.style_class(exemplar.segment_id)
    label = one_line(exemplar.label)
    shown = tag("span", class_=f"thumb {style}" if style else "thumb", role="img", aria_label=f"Exemplar of {label}")
    facts = (label, f"d={exemplar.distance:.2f}", one_line(exemplar.origin))
    return tag("figure", shown, tag("figcaption", *(tag("div", fact) for fact in facts)))


def _chapter(number: int, chapter: Chapter) -> Markup:
    return joined(
        tag("h3", f"{number}. {chapter.title}"),
        tag("pre", "\n".join(chapter.commands)),
        *(tag("pre" if "\n" in remark else "p", remark) for remark in chapter.remarks),
    )
