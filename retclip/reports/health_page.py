"""The health of a database as one HTML file with pictures, to decide by eye what is mislabelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path

from retclip.core.files import write_bytes
from retclip.reports.captions import one_line, percent
from retclip.reports.html_image import Gallery
from retclip.reports.markup import Markup, joined, tag
from retclip.shards.health import ClassHealth, Disagreement, Duplicate, Health
from retclip.shards.suggestions import Suggestion

MAX_ROWS = 500
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
table{border-collapse:collapse;margin:0 0 2rem}th,td{text-align:left;padding:.3rem .8rem;vertical-align:top}
tr+tr{border-top:1px solid #8884}td.number{text-align:right;font-variant-numeric:tabular-nums}
.thumb{display:inline-block;width:128px;height:128px;background:#8882 center/contain no-repeat}
figure{display:inline-block;margin:0 .6rem 0 0;width:128px}figcaption{font-size:12px;overflow-wrap:anywhere}"""


def write_health_page(
    path: Path, health: Health, suggestions: Sequence[Suggestion], thumbnail: Callable[[int], bytes | None]
) -> None:
    """Write the page; it needs no other file, asks nothing of the network, and takes no text for markup.

    Args:
        path: the file to write; it appears whole or not at all.
        health: what to show; at most `MAX_ROWS` rows of a table are shown, and the page says so.
        suggestions: which classes to add to.
        thumbnail: encoded picture of a stored segment by its id, or None.

    Raises:
        InputError: E131 if the file cannot be written.
        ResourceError: E401 if the disk is full.
    """
    gallery = Gallery(thumbnail)
    body = joined(
        tag("h1", f"Health of {health.database}"),
        tag(
            "p",
            f"{health.segments:,} segments, {health.asked:,} asked, {health.judged:,} judged by their neighbours in"
            f" other pictures; distances under '{health.transform}'. Recall of search: {health.recall:.3f}"
            f" ({health.plan.reason}).",
        ),
        _section("Labels that neighbours contradict", len(health.disagreeing), _disagreeing(health, gallery)),
        _section("Near doubles in different pictures", len(health.duplicates), _duplicates(health, gallery)),
        _section("What to add next", len(suggestions), _suggestions(suggestions)),
        _section("Classes", len(health.classes), _classes(health.classes)),
    )
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"Health of {health.database}"),
        tag("style", Markup(_STYLE + "\n" + gallery.stylesheet())),
    )
    page = "<!doctype html>\n" + tag("html", tag("head", head), tag("body", body), lang="en")
    write_bytes(path, page.encode("utf-8", errors="replace"))


def _section(title: str, count: int, table: Markup) -> Markup:
    shown = f"{title} ({count:,})" if count <= MAX_ROWS else f"{title} ({count:,}, the first {MAX_ROWS} shown)"
    return joined(tag("h2", shown), table if count else tag("p", "None."))


def _table(heads: Sequence[str], rows: Sequence[Sequence[Markup]]) -> Markup:
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    return tag("table", tag("thead", head), tag("tbody", *(tag("tr", *cells) for cells in rows)))


def _disagreeing(health: Health, gallery: Gallery) -> Markup:
    return _table(
        ("Segment", "Neighbours say", "Nearest neighbours"),
        [_disagreement(health, item, gallery) for item in health.disagreeing[:MAX_ROWS]],
    )


def _disagreement(health: Health, item: Disagreement, gallery: Gallery) -> list[Markup]:
    nearest = [_picture(health, gallery, *neighbor) for neighbor in item.neighbours[:4]]
    verdict = tag("td", tag("b", one_line(item.other)), f" {percent(item.share)}")
    return [tag("td", _picture(health, gallery, item.segment_id, item.label)), verdict, tag("td", *nearest)]


def _duplicates(health: Health, gallery: Gallery) -> Markup:
    rows = [_duplicate(health, pair, gallery) for pair in health.duplicates[:MAX_ROWS]]
    return _table(("One", "Other", "Distance"), rows)


def _duplicate(health: Health, pair: Duplicate, gallery: Gallery) -> list[Markup]:
    return [
        tag("td", _picture(health, gallery, pair.segment_id, pair.label)),
        tag("td", _picture(health, gallery, pair.other_id, pair.other_label)),
        tag("td", f"{pair.distance:.5f}", class_="number"),
    ]


def _suggestions(suggestions: Sequence[Suggestion]) -> Markup:
    rows = [
        [tag("td", one_line(item.name)), tag("td", "; ".join(item.reasons)), tag("td", "; ".join(item.additions))]
        for item in suggestions[:MAX_ROWS]
    ]
    return _table(("Class", "Because", "Add"), rows)


def _classes(classes: Sequence[ClassHealth]) -> Markup:
    rows = [
        [
            tag("td", one_line(item.name)),
            tag("td", f"{item.segments:,}", class_="number"),
            tag("td", f"{item.images:,}", class_="number"),
            tag("td", "not judged" if isnan(item.agreement) else percent(item.agreement), class_="number"),
            tag("td", ", ".join(f"{one_line(name)} {percent(share)}" for name, share in item.confused_with.items())),
        ]
        for item in classes[:MAX_ROWS]
    ]
    return _table(("Class", "Segments", "Pictures", "Agreement", "Neighbours of other classes"), rows)


def _picture(health: Health, gallery: Gallery, segment_id: int, label: str, distance: float | None = None) -> Markup:
    style = gallery.style_class(segment_id)
    word = one_line(label) + ("" if distance is None else f" {distance:.3f}")
    shown = tag("span", class_=f"thumb {style}" if style else "thumb", role="img", aria_label=word)
    address = one_line(health.pictures[segment_id])
    lines = (word, f"{segment_id:016x}", address.rsplit("/", 1)[-1] or address)
    # Paths are long, and mostly alike: the whole one shows under the pointer.
    return tag("figure", shown, tag("figcaption", *(tag("div", line) for line in lines), title=address))
