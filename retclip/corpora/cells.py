"""Values of table cells: lists of labels, labelled boxes, numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NamedTuple


class LabelledBox(NamedTuple):
    """box: x0, y0, x1, y1 in pixels; label as found."""

    box: tuple[float, float, float, float]
    label: str


def parse_text(value: object) -> str:
    """A cell as one line of text; nothing becomes the empty text. Raises ValueError for lists and objects."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a text, got {type(value).__name__}")
    return str(value).strip()


def parse_labels(value: object) -> tuple[str, ...]:
    """Labels of a cell: a list, the text of a JSON list, or names separated by `|` or `;`; doubles are dropped.

    Raises:
        ValueError: the cell is none of these.
    """
    if isinstance(value, list):
        items: Sequence[object] = value
    else:
        text = parse_text(value)
        items = _parse_list(text) if text.startswith("[") else text.split("|" if "|" in text else ";")
    names = (parse_text(item) for item in items)
    return tuple(dict.fromkeys(name for name in names if name))


def parse_captions(value: object) -> tuple[str, ...]:
    """Captions of a cell: one text or a list of texts. Raises ValueError for anything else."""
    texts = (parse_text(item) for item in (value if isinstance(value, list) else [value]))
    return tuple(text for text in texts if text)


def parse_boxes(value: object) -> tuple[LabelledBox, ...]:
    """Boxes of a cell: a list of `[x0, y0, x1, y1, label]`, or the text of such a JSON list.

    Raises:
        ValueError: the cell is something else, a number is not finite or a box is empty.
    """
    if value is None or value == "":
        return ()
    items = value if isinstance(value, list) else _parse_list(parse_text(value))
    return tuple(_parse_box(item) for item in items)


def _parse_list(text: str) -> list[object]:
    try:
        items = json.loads(text)
    except RecursionError as error:
        raise ValueError("lists are nested too deeply") from error
    if not isinstance(items, list):
        raise ValueError(f"expected a list, got {text[:40]}")
    return items


def _parse_box(item: object) -> LabelledBox:
    if not isinstance(item, list) or len(item) != 5:
        raise ValueError(f"expected [x0, y0, x1, y1, label], got {str(item)[:60]}")
    # Columns of Parquet hold one type, so numbers may come as texts there.
    x0, y0, x1, y1 = (float(parse_text(number)) for number in item[:4])
    label = parse_text(item[4])
    if not label or not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
        raise ValueError(f"expected x0 < x1, y0 < y1 and a label, got {str(item)[:60]}")
    return LabelledBox((x0, y0, x1, y1), label)
