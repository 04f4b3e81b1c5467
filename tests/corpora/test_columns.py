from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retclip.core.errors import InputError
from retclip.corpora import columns
from retclip.corpora.columns import read_columns

cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)


@given(st.lists(st.tuples(cells, cells, cells), max_size=8))
def test_columns_are_picked_from_any_quoting(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("A", "B", "C"), *rows])
    assert list(read_columns(path, ("c", "A"), ("missing",))) == [(c, a, "") for a, _, c in rows]


def test_blank_lines_and_byte_order_marks_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfA,B\n1,2\n\n3,4\n")
    assert list(read_columns(path, ("A", "B"))) == [("1", "2"), ("3", "4")]


def test_a_line_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MAX_LINE_BYTES", 100)
    path = tmp_path / "a.csv"
    path.write_text("A,B\n1," + "x" * 1000 + "\n")
    with pytest.raises(InputError, match=r"E105 .*a\.csv:\d"):
        list(read_columns(path, ("A", "B")))


@pytest.mark.parametrize("content", [b"", b"A\n1\n", b"A,B\n1\n", b'A,B\n1,"2\n', b"A,B\n\xff,2\n"])
def test_damage_is_named_with_its_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"E105 .*a\.csv:\d"):
        list(read_columns(path, ("A", "B")))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"E105 .*gone\.csv"):
        list(read_columns(tmp_path / "gone.csv", ("A", "B")))
