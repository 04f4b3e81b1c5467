"""The page of the demo shows every step and object, and takes no text for markup."""

from __future__ import annotations

from pathlib import Path

import pytest

from retclip.core.errors import InputError
from retclip.reports.demo_page import Chapter, Exemplar, Measured, Naming, Story, summary_rows, write_demo_page

EVIL = "<script>alert(1)</script>"
PHOTO = "data:image/jpeg;base64,AAAA"


def story() -> Story:
    def measured(version: int, label: str) -> Measured:
        exemplar = Exemplar(255, EVIL, f"folder/{EVIL}", 0.125)
        namings = (
            Naming("000003", "key", label, 0.5, "retrieval", (exemplar,) * 5),
            Naming("000003", "key", "", 0.0, "", ()),
            Naming("000004", "ring", "ring", 0.25, "CLIP", ()),
        )
        return Measured(version, {"all": 12.345, "key": None}, namings, {"000003": PHOTO, "000004": PHOTO})

    chapters = (
        Chapter("Draw", (f"retclip corpora make {EVIL}",), ("10 scenes",), 1.0, None),
        Chapter("Segment", ("retclip segment",), ("a table\nof two lines",), 2.0, measured(1, EVIL)),
        Chapter("Teach", ("retclip index add-classes",), (), 3.0, measured(2, "key")),
    )
    claims = (("the key is found", True), (EVIL, False))
    return Story("Scenes.", chapters, (PHOTO,) * 3, claims, (("retclip doctor", "Look."),), 61.4, 3 << 29)


def test_everything_is_shown_and_escaped(tmp_path: Path) -> None:
    path = write_demo_page(tmp_path / "report.html", story(), lambda number: None)
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4
    for words in ("61 seconds, at most 1.50 GiB", "1. Draw", "3. Teach", "<pre>a table\nof two lines</pre>", "d=0.12"):
        assert words in text
    # One photo per object, one overlay per object and measured step.
    assert text.count(f'src="{PHOTO}"') == 3 + 3 * 2
    assert text.count('class="right">yes') == text.count('class="wrong">no<') == 1
    # Two of three objects have no exemplar; of five neighbours the nearest three are shown.
    assert text.count("<figure>") == 3 * 2


def test_the_table_has_a_row_per_measured_step_and_the_first_object_of_each_class() -> None:
    heads, rows = summary_rows(story())
    assert heads == ["step", "version ", "PQ all ", "PQ key ", "key in 000003", "ring in 000004", "seconds "]
    assert rows[1] == ["Teach", "2", "12.3", "-", "key 0.50", "ring 0.25", "3.0"]
    assert len(rows) == 2


def test_a_page_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E131"):
        write_demo_page(tmp_path / "nowhere" / "report.html", story(), lambda number: None)
