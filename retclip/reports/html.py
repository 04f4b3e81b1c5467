"""The HTML report: one file that needs nothing else, for one picture or a few hundred."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.files import atomic_file
from retclip.core.results import SegmentationResult
from retclip.reports.html_image import Gallery, image_article
from retclip.reports.html_overview import Tally, overview

# Encoded picture (JPEG, PNG, ...) of a stored segment by its id, or None where the database keeps none.
Thumbnail = Callable[[int], bytes | None]


@dataclass(frozen=True)
class ReportItem:
    """One picture of a report. pixels: (H, W, 3) uint8 RGB, the picture `result` was made from."""

    result: SegmentationResult
    pixels: npt.NDArray[np.uint8]


def write_html_report(path: Path, items: Iterable[ReportItem], run: Mapping[str, Any], thumbnail: Thumbnail) -> None:
    """Write a self-contained report; nothing in it asks the network, and no text in it is taken for markup.

    Pictures are embedded as JPEG of at most `PICTURE_SIDE` pixels a side and exemplars of at most `THUMBNAIL_SIDE`,
    each exemplar once per report: a 640 x 480 photo adds about 0.3 MB. Items are consumed one by one, so a
    generator keeps a single picture in memory.

    Args:
        path: the file to write; it appears whole or not at all.
        items: pictures with their results, in the order to show.
        run: settings and identities shared by all of them, plain JSON types.
        thumbnail: picture of a stored segment.

    Raises:
        InputError: E131 if the file cannot be written.
        ResourceError: E401 if the disk is full.
    """
    gallery, tally = Gallery(thumbnail), Tally()
    # The overview stands first but is known last, so articles wait in a nameless file beside the report.
    with atomic_file(path) as report, tempfile.TemporaryFile(dir=path.parent) as waiting:
        for number, item in enumerate(items, start=1):
            article = image_article(number, item.result, item.pixels, gallery)
            waiting.write(_encoded(article))
            tally.add(number, item.result)
        head, tail = _frame(gallery.stylesheet(), overview(tally, run))
        report.write(_encoded(head))
        waiting.seek(0)
        shutil.copyfileobj(waiting, report)
        report.write(_encoded(tail))


def _frame(thumbnails: str, summary: str) -> tuple[str, str]:
    """What stands before and after the articles."""
    folder = files("retclip.reports")
    page = folder.joinpath("report.html").read_text(encoding="utf-8")
    style = folder.joinpath("report.css").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    head, mark, tail = page.partition("$articles")
    assert mark
    values = {"script_digest": digest, "style": style + thumbnails, "overview": summary}
    return Template(head).substitute(values), tail


def _encoded(text: str) -> bytes:
    # File names may hold lone surrogates, which UTF-8 cannot say.
    return text.encode("utf-8", errors="replace")
