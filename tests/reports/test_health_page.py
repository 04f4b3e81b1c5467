"""The health page shows what was found, and takes no text for markup."""

from pathlib import Path

import numpy as np
import pytest

from retclip.core.errors import DatabaseError, InputError
from retclip.reports.distances import nearest_distances
from retclip.reports.health_page import MAX_ROWS, write_health_page
from retclip.shards.health import ClassHealth, Disagreement, Duplicate, Health
from retclip.shards.search import Plan
from retclip.shards.suggestions import Suggestion

EVIL = "<script>alert(1)</script>"


def health(disagreeing: int) -> Health:
    one = Disagreement(7, EVIL, "cat & dog", 0.75, ((8, "cat & dog", 0.125),))
    return Health(
        database="pets@2", transform="none", segments=10, asked=9, judged=8,
        classes=(ClassHealth(EVIL, 5, 2, 0.1, float("nan"), {"cat & dog": 0.5}),),
        disagreeing=(one,) * disagreeing, duplicates=(Duplicate(1, "a", 2, "b", 0.0005),),
        pictures={1: "one.jpg", 2: "two.jpg", 7: "a/<b>.jpg", 8: "eight.jpg"},
        nearest=np.zeros(3, np.float32), plan=Plan("ivf", "many rows", 10, exact=False, recall=0.987),
    )  # fmt: skip


def page(path: Path, disagreeing: int = 1) -> str:
    suggestion = Suggestion(EVIL, 0.5, (f"like {EVIL}",), ("more",))
    write_health_page(path / "health.html", health(disagreeing), [suggestion], lambda number: None)
    return (path / "health.html").read_text(encoding="utf-8")


def test_everything_is_shown_and_escaped(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4
    for word in (
        "pets@2",
        f"{7:016x}",
        f"{8:016x}",
        "cat &amp; dog",
        "75 %",
        "0.00050",
        "not judged",
        "search: 0.987",
        "many rows",
        "one.jpg",
        "two.jpg",
        "a/&lt;b&gt;.jpg",
        "eight.jpg",
    ):
        assert word in text


def test_long_lists_are_cut_and_say_so(tmp_path: Path) -> None:
    text = page(tmp_path, MAX_ROWS + 5)
    assert f"{MAX_ROWS + 5:,}, the first {MAX_ROWS} shown" in text
    assert text.count(f"{7:016x}") == MAX_ROWS


def test_a_page_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="E131"):
        page(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema": "other/1"}', '{"schema": "retclip.segments/1", "run": 3}']
)
def test_results_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "segments.json").write_text(text)
    with pytest.raises(DatabaseError, match=r"E319(.|\n)*segments.json"):
        nearest_distances(tmp_path, "f", "none")
