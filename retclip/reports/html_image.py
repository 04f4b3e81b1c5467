"""One picture in the HTML report: the picture itself, and a table that answers for every segment."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from PIL import Image

from retclip.core.errors import ImageError
from retclip.core.images import decode_picture
from retclip.core.panoptic import ids_to_rgb
from retclip.core.results import Explanation, Neighbor, SegmentationResult
from retclip.reports.captions import BADGES, EXPERT_NAMES, EXPERTS, is_uncertain, one_line, percent
from retclip.reports.coco import encode_png
from retclip.reports.markup import Markup, tag
from retclip.reports.overlay import draw_overlay
from retclip.reports.palette import segment_colors

PICTURE_SIDE = 1024
THUMBNAIL_SIDE = 96
EXEMPLARS = 4
RUNNERS_UP = 3


class Gallery:
    """Pictures of stored segments, each kept once however many segments name it.

    Thumbnails come out of a database file, so they are decoded and encoded again: what cannot be decoded is shown
    as missing, and nothing but pixels passes through.

    Args:
        thumbnail: encoded picture by segment id, or None.
    """

    def __init__(self, thumbnail: Callable[[int], bytes | None]) -> None:
        self._thumbnail = thumbnail
        self._pictures: dict[int, str | None] = {}
        self._rules: list[str] = []

    def style_class(self, segment_id: int) -> str | None:
        """The class of an element that shows this segment, or None if there is no picture of it."""
        if segment_id not in self._pictures:
            self._pictures[segment_id] = self._admit(self._thumbnail(segment_id))
        return self._pictures[segment_id]

    def stylesheet(self) -> str:
        """CSS that gives each class its picture."""
        return "\n".join(self._rules)

    def _admit(self, data: bytes | None) -> str | None:
        if data is None:
            return None
        try:
            pixels = decode_picture(data, "thumbnail", max_pixels=1 << 22).pixels
        except ImageError:
            return None
        name = f"t{len(self._rules)}"
        self._rules.append(f".{name}{{background-image:url({_jpeg(pixels, THUMBNAIL_SIDE)})}}")
        return name


def image_article(number: int, result: SegmentationResult, pixels: npt.NDArray[np.uint8], gallery: Gallery) -> Markup:
    """The `<article>` of the number-th picture; pixels (H, W, 3) uint8 RGB."""
    height, width = result.panoptic.ids.shape
    name = one_line(PurePath(result.image).name)
    facts = f"{width} × {height} px · {_counted(len(result.explanations), 'segment')} · {result.seconds:.1f} s"
    return tag(
        "article",
        tag("h2", name, id=f"heading-{number}"),
        tag("p", facts, " · ", tag("code", f"sha256 {result.image_sha256[:12]}"), class_="facts"),
        tag("div", _figure(number, result, pixels), _segment_table(result, gallery), class_="columns"),
        id=f"image-{number}",
        aria_labelledby=f"heading-{number}",
    )


def _figure(number: int, result: SegmentationResult, pixels: npt.NDArray[np.uint8]) -> Markup:
    name = one_line(PurePath(result.image).name)
    found = ", ".join(dict.fromkeys(one_line(e.label, 40) for e in result.explanations)) or "nothing"
    overlay = np.asarray(draw_overlay(pixels, result, legend=False))
    picked, seen = f"view-{number}", tag("span", "View", class_="unseen")
    return tag(
        "figure",
        tag("input", type="radio", name=picked, id=f"{picked}-overlay", class_="unseen see-overlay", checked=True),
        tag("input", type="radio", name=picked, id=f"{picked}-photo", class_="unseen see-photo"),
        tag(
            "div",
            seen,
            tag("label", "Overlay", for_=f"{picked}-overlay"),
            tag("label", "Photo", for_=f"{picked}-photo"),
            class_="switch",
        ),
        tag(
            "div",
            tag("img", class_="photo", src=_jpeg(pixels, PICTURE_SIDE), alt=f"Photo {name}", decoding="async"),
            tag(
                "img",
                class_="overlay",
                src=_jpeg(overlay, PICTURE_SIDE),
                alt=f"Segments of {name}: {found}",
                decoding="async",
            ),
            tag("canvas", aria_hidden="true"),
            tag("img", class_="numbers", src=_number_map(result), alt="", hidden=True),
            class_="stage",
        ),
    )


def _segment_table(result: SegmentationResult, gallery: Gallery) -> Markup:
    if not result.explanations:
        return tag("p", "No segment passed the thresholds.", class_="empty")
    heads = [tag("th", head, scope="col") for head in ("Segment", "Score", "Runner-ups", "Nearest exemplars")]
    colors = segment_colors(result.panoptic.segments)
    order = sorted(range(len(colors)), key=lambda i: (-result.explanations[i].segment.area, i))
    rows = [
        tag(
            "tr",
            _name_cell(result, result.explanations[i], colors[i]),
            _score_cell(result.explanations[i]),
            _runner_up_cell(result.explanations[i]),
            _exemplar_cell(result.explanations[i], gallery),
            data_number=i + 1,
            tabindex=0,
        )
        for i in order
    ]
    return tag("div", tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows)), class_="scroll")


def _name_cell(result: SegmentationResult, explanation: Explanation, color: npt.NDArray[np.uint8]) -> Markup:
    segment = explanation.segment
    swatch = tag("span", class_="swatch", style="background:#" + color.tobytes().hex())
    area = percent(segment.area / result.panoptic.ids.size, 1)
    facts = f"#{segment.id} · {'thing' if segment.is_thing else 'stuff'}"
    flags = [tag("span", one_line(flag.replace("_", " ")), class_="flag") for flag in explanation.flags]
    return tag(
        "th",
        tag("div", swatch, tag("span", one_line(explanation.label)), class_="label"),
        tag("div", facts, class_="quiet"),
        tag("div", f"{area} of the picture", class_="quiet"),
        tag("div", *flags) if flags else "",
        scope="row",
    )


def _score_cell(explanation: Explanation) -> Markup:
    score = explanation.segment.score
    parts = [
        tag("span", class_=f"part {expert}", style=f"width:{100 * score * explanation.shares.get(expert, 0):.2f}%")
        for expert in EXPERTS
    ]
    said = [
        tag("span", tag("b", BADGES[expert], class_=f"ink {expert}"), f" {value:.2f}", title=EXPERT_NAMES[expert])
        for expert in EXPERTS
        if (value := explanation.scores.get(expert)) is not None
    ]
    decider = explanation.decided_by
    shares = ", ".join(f"{EXPERT_NAMES[expert]} {percent(explanation.shares.get(expert, 0))}" for expert in EXPERTS)
    return tag(
        "td",
        tag(
            "div",
            tag("span", f"{score:.2f}", class_="score"),
            tag("span", EXPERT_NAMES[decider], class_=f"badge {decider}"),
            class_="verdict",
        ),
        tag(
            "div",
            *parts,
            class_="bar" + (" uncertain" if is_uncertain(explanation) else ""),
            role="img",
            aria_label=f"Score {score:.2f}; shares: {shares}",
        ),
        tag("div", *said, class_="said"),
    )


def _runner_up_cell(explanation: Explanation) -> Markup:
    runners = [
        tag("li", tag("span", one_line(label)), tag("span", f"{score:.2f}", class_="number"))
        for label, score in explanation.runner_up[:RUNNERS_UP]
    ]
    return tag("td", tag("ol", *runners, class_="runners") if runners else tag("span", "none", class_="quiet"))


def _exemplar_cell(explanation: Explanation, gallery: Gallery) -> Markup:
    nearest = explanation.neighbors[:EXEMPLARS]
    if not nearest:
        missing = "no exemplars in the database" if explanation.match.method == "none" else "none near enough"
        return tag("td", tag("span", missing, class_="quiet"))
    pictures = [_exemplar(explanation, neighbor, gallery) for neighbor in nearest]
    sources = [_source(neighbor) for neighbor in nearest]
    return tag(
        "td",
        tag("div", *pictures, class_="exemplars"),
        tag("details", tag("summary", "Sources and licences"), tag("ol", *sources)),
    )


def _exemplar(explanation: Explanation, neighbor: Neighbor, gallery: Gallery) -> Markup:
    picture = gallery.style_class(neighbor.stored.segment_id)
    label = one_line(neighbor.label)
    word = f"Stored segment “{label}”, distance {neighbor.distance:.2f}"
    shown = (
        tag("span", class_=f"thumb {picture}", role="img", aria_label=word, title=word)
        if picture
        else tag("span", "no picture", class_="thumb", title=word)
    )
    named = "" if neighbor.label == explanation.label else tag("span", one_line(label, 14), class_="other")
    return tag("div", shown, tag("span", f"{neighbor.distance:.2f}", class_="number"), named)


def _source(neighbor: Neighbor) -> Markup:
    stored = neighbor.stored
    facts = [
        f"{stored.source}/{stored.image_id}",
        f"label by {stored.label_source}",
        f"licence: {stored.license or 'unknown'}",
    ]
    if stored.attribution:
        facts.append(f"by {stored.attribution}")
    return tag("li", tag("b", one_line(neighbor.label)), " ", " · ".join(one_line(fact) for fact in facts))


def _number_map(result: SegmentationResult) -> str:
    """Data URI of a PNG whose colours count the segments from 1, at the size of the shown picture."""
    listed = np.array([0, *(segment.id for segment in result.panoptic.segments)], dtype=np.int32)
    order = np.argsort(listed)
    numbers = order[np.searchsorted(listed[order], result.panoptic.ids)].astype(np.int32)
    image = Image.fromarray(ids_to_rgb(numbers))
    small = image.resize(_shown_size(image.size, PICTURE_SIDE), Image.Resampling.NEAREST)
    return "data:image/png;base64," + base64.b64encode(encode_png(small)).decode()


def _jpeg(pixels: npt.NDArray[np.uint8], side: int) -> str:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.resize(_shown_size(image.size, side), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=82, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _shown_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) scaled down until neither is longer than `side`."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
