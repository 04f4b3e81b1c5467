"""The strip below an overlay: classes with their colours, how much they cover, and what the marks mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from retclip.core.results import SegmentationResult
from retclip.reports.captions import BADGES, EXPERT_NAMES, LOW_CONFIDENCE, is_uncertain, one_line, percent
from retclip.reports.lettering import BADGE_COLORS, INK, Lettering
from retclip.reports.palette import UNLABELLED, Rgb, category_color

LEGEND_WIDTH = 320
GROUND: Rgb = (24, 26, 32)
QUIET: Rgb = (168, 172, 182)


@dataclass(frozen=True)
class LegendEntry:
    """One class of a result. share: part of the picture in [0, 1]; instances: of a thing class, 0 for stuff."""

    name: str
    color: Rgb
    share: float
    instances: int

    @property
    def note(self) -> str:
        """What stands behind the name: `(3) 12 %`."""
        count = f"({self.instances}) " if self.instances else ""
        return f"{count}{percent(self.share)}"


def legend_entries(result: SegmentationResult) -> list[LegendEntry]:
    """Classes that were found, by area, then the unlabelled rest if there is one."""
    pixels = result.panoptic.ids.size
    areas: dict[int, int] = {}
    counts: dict[int, int] = {}
    for segment in result.panoptic.segments:
        areas[segment.category_id] = areas.get(segment.category_id, 0) + segment.area
        counts[segment.category_id] = counts.get(segment.category_id, 0) + segment.is_thing
    names = {explanation.segment.category_id: explanation.label for explanation in result.explanations}
    entries = [
        LegendEntry(one_line(names[key], 32), category_color(key), areas[key] / pixels, counts[key])
        for key in sorted(areas, key=lambda key: (-areas[key], key))
    ]
    unlabelled = int(np.count_nonzero(result.panoptic.ids == 0))
    if unlabelled:
        entries.append(LegendEntry("unlabelled", UNLABELLED, unlabelled / pixels, 0))
    return entries


def draw_legend(picture: Image.Image, result: SegmentationResult, lettering: Lettering) -> Image.Image:
    """The picture with its legend below; narrow pictures are set in the middle of a `LEGEND_WIDTH` wide sheet."""
    width = max(picture.width, LEGEND_WIDTH)
    gap = lettering.size
    entries, marks = legend_entries(result), _marks(result)
    entry_lines = _wrap([_entry_width(entry, lettering) for entry in entries], width - 2 * gap, gap)
    mark_lines = _wrap([_mark_width(mark, lettering) for mark in marks], width - 2 * gap, gap)
    pitch = round(lettering.line * 1.45)
    height = picture.height + (len(entry_lines) + len(mark_lines)) * pitch + gap
    sheet = Image.new("RGB", (width, height), GROUND)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    y = picture.height + gap // 2 + pitch // 2
    for line in entry_lines:
        x = gap
        for number in line:
            _draw_entry(draw, (x, y), entries[number], lettering)
            x += _entry_width(entries[number], lettering) + gap
        y += pitch
    for line in mark_lines:
        x = gap
        for number in line:
            _draw_mark(draw, (x, y), marks[number], lettering)
            x += _mark_width(marks[number], lettering) + gap
        y += pitch
    return sheet


def _wrap(widths: list[int], room: int, gap: int) -> list[list[int]]:
    """Indices in lines that are at most `room` wide; an entry wider than that has a line of its own."""
    lines: list[list[int]] = []
    used = room + 1
    for number, width in enumerate(widths):
        if used + gap + width > room:
            lines.append([])
            used = -gap
        lines[-1].append(number)
        used += gap + width
    return lines


def _entry_width(entry: LegendEntry, lettering: Lettering) -> int:
    return round(lettering.size * 1.5) + lettering.width(f"{entry.name} ") + lettering.width(entry.note)


def _draw_entry(draw: ImageDraw.ImageDraw, at: tuple[int, int], entry: LegendEntry, lettering: Lettering) -> None:
    x, y = at
    side = lettering.size
    box = (x, y - side // 2, x + side, y - side // 2 + side)
    draw.rounded_rectangle(box, max(2, side // 5), fill=entry.color)
    x += round(side * 1.5)
    lettering.write(draw, (x, y), entry.name, INK)
    x += lettering.width(f"{entry.name} ")
    lettering.write(draw, (x, y), entry.note, QUIET)


def _marks(result: SegmentationResult) -> list[tuple[str, str]]:
    """The marks this picture uses, as (badge letter or empty, meaning)."""
    present = {explanation.decided_by for explanation in result.explanations}
    marks = [(badge, EXPERT_NAMES[expert]) for expert, badge in BADGES.items() if expert in present]
    if any(is_uncertain(explanation) for explanation in result.explanations):
        marks.append(("", f"dashed: below {percent(LOW_CONFIDENCE)}"))
    return marks


def _mark_width(mark: tuple[str, str], lettering: Lettering) -> int:
    badge, meaning = mark
    return lettering.width(meaning) + (round(lettering.size * 1.75) if badge else 0)


def _draw_mark(draw: ImageDraw.ImageDraw, at: tuple[int, int], mark: tuple[str, str], lettering: Lettering) -> None:
    x, y = at
    badge, meaning = mark
    if badge:
        side = round(lettering.size * 1.25)
        box = (x, y - side // 2, x + side, y + side - side // 2)
        draw.rounded_rectangle(box, side // 4, fill=BADGE_COLORS[badge])
        lettering.write(draw, (x + side / 2, y), badge, INK, anchor="mm")
        x += round(lettering.size * 1.75)
    lettering.write(draw, (x, y), meaning, QUIET)
