"""`--explain` on the terminal: one line per segment, and hints for classes the database does not know."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from retclip.core.results import Explanation, SegmentationResult
from retclip.reports.captions import EXPERT_NAMES, EXPERTS, database_names, is_uncertain, one_line, percent

_HEADS = ("id", "label", "kind", "area", "score", "decided by", "retrieval", "clip", "in-vocab", "nearest exemplar")
_NUMBERS = frozenset({"id", "area", "score", "retrieval", "clip", "in-vocab"})
_STYLES = {"retrieval": "blue", "clip": "yellow", "in-vocab": "green"}


def print_explanations(result: SegmentationResult, console: Console) -> None:
    """Print summary, table and hints of one image, largest segment first: coloured on a terminal, else plain."""
    console.print(Text(summary(result), style="bold"), soft_wrap=True)
    shown = sorted(result.explanations, key=lambda e: (-e.segment.area, e.segment.id))
    for line in _lines(result, shown):
        console.print(line, soft_wrap=True)
    for hint in hints(result):
        console.print(Text.assemble(("hint  ", "bold cyan"), hint), soft_wrap=True)


def summary(result: SegmentationResult) -> str:
    """`street.jpg  5 segments in 1.9 s  (retrieval 3, CLIP 1, in-vocab 1)`."""
    count = len(result.explanations)
    deciders = Counter(explanation.decided_by for explanation in result.explanations)
    tallies = ", ".join(f"{EXPERT_NAMES[expert]} {deciders[expert]}" for expert in EXPERTS if deciders[expert])
    head = (
        f"{one_line(PurePath(result.image).name)}  {count} segment{'' if count == 1 else 's'} in {result.seconds:.1f} s"
    )
    return f"{head}  ({tallies})" if tallies else head


def hints(result: SegmentationResult) -> list[str]:
    """What would make the result better, one text of one or two lines per class that needs it."""
    databases = database_names(result.run)
    place = f"db '{one_line(databases[0])}'" if databases else "the database"
    option = f" --db {shlex.quote(databases[0])}" if databases else ""
    texts: dict[str, str] = {}
    for explanation in result.explanations:
        match, name = explanation.match, one_line(explanation.match.requested)
        if match.method == "none":
            texts[name] = (
                f"'{name}' is not in {place}.\n"
                f"      retclip index add-classes{option} --classes {shlex.quote(name)} --images DIR"
            )
        elif match.method == "text":
            stored = ", ".join(f"'{one_line(label)}'" for label in match.stored[:3])
            texts[name] = (
                f"'{name}' is not in {place}; {stored} answered for it (text similarity {match.similarity:.2f})."
            )
    return list(texts.values())


def _row(result: SegmentationResult, explanation: Explanation) -> tuple[str, ...]:
    segment = explanation.segment
    scores = (explanation.scores.get(expert) for expert in EXPERTS)
    return (
        str(segment.id),
        one_line(explanation.label, 40),
        "thing" if segment.is_thing else "stuff",
        percent(segment.area / result.panoptic.ids.size, 1),
        f"{segment.score:.2f}",
        EXPERT_NAMES[explanation.decided_by],
        *("-" if score is None else f"{score:.2f}" for score in scores),
        _nearest(explanation),
    )


def _nearest(explanation: Explanation) -> str:
    if not explanation.neighbors:
        see = "; see hint" if explanation.match.method == "none" else ""
        return f"(no '{one_line(explanation.label, 30)}' exemplars{see})"
    nearest = explanation.neighbors[0]
    place = one_line(f"{nearest.stored.source}/{nearest.stored.image_id}", 60)
    named = "" if nearest.label == explanation.label else f"  '{one_line(nearest.label, 30)}'"
    return f"{place}{named}  d={nearest.distance:.2f}"


def _lines(result: SegmentationResult, shown: list[Explanation]) -> list[Text]:
    """Padded columns; a Rich table would fold them on a narrow terminal, a long line only wraps."""
    if not shown:
        return []
    rows = [_row(result, explanation) for explanation in shown]
    widths = [max(map(cell_len, column)) for column in zip(_HEADS, *rows, strict=True)]
    lines = [_line(_HEADS, widths, ["dim"] * len(_HEADS))]
    for explanation, row in zip(shown, rows, strict=True):
        score = "red" if is_uncertain(explanation) else ""
        lines.append(_line(row, widths, ["", "bold", "", "", score, _STYLES[explanation.decided_by], "", "", "", ""]))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> Text:
    line = Text()
    for head, cell, width, style in zip(_HEADS, cells, widths, styles, strict=True):
        blank = " " * (width - cell_len(cell))
        line.append("  ").append(blank if head in _NUMBERS else "").append(cell, style)
        line.append("" if head in _NUMBERS else blank)
    line.rstrip()
    return line
