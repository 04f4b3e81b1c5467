from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from retclip.core.errors import InputError
from retclip.corpora import rows
from retclip.corpora.rows import read_rows

COLUMNS = frozenset({"path", "labels"})


def as_csv(records: list[dict[str, str]], delimiter: str = ",") -> bytes:
    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    names = ("path", "other", "labels")
    lines = [names, *([quoted(record[name]) for name in names] for record in records)]
    return "".join(delimiter.join(line) + "\r\n" for line in lines).encode()


def as_json_lines(records: list[dict[str, str]]) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def as_parquet(records: list[dict[str, str]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), sink)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "a.csv": as_csv,
    "b.csv": lambda records: b"\xef\xbb\xbf" + as_csv(records, ";"),
    "c.TSV": lambda records: as_csv(records, "\t"),
    "d.jsonl": as_json_lines,
    "e.ndjson": as_json_lines,
    "f.parquet": as_parquet,
}


@st.composite
def records(draw: DrawFn) -> list[dict[str, str]]:
    cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00"), max_size=12)
    return draw(st.lists(st.fixed_dictionaries({"path": cell, "other": cell, "labels": cell}), min_size=1, max_size=5))


@pytest.mark.parametrize("name", WRITERS)
@given(written=records())
def test_every_format_gives_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, name: str, written: list[dict[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / name
    path.write_bytes(WRITERS[name](written))
    found = list(read_rows(path, COLUMNS))
    assert [row.values for row in found] == [{key: record[key] for key in ("path", "labels")} for record in written]
    first = 2 if path.suffix.casefold() in {".csv", ".tsv"} else 1
    assert [row.line for row in found] == list(range(first, first + len(written)))


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", b"path,labels\nx,y\n\nx,y,z\n", r"a\.csv:4"),
        ("a.csv", b'path,labels\nx,"y"z\n', r"a\.csv:2"),
        ("a.csv", b'path,labels\nx,"y\n', r"a\.csv:2"),
        ("a.csv", b"path,labels\nx,\xff\n", r"a\.csv:2"),
        ("a.csv", b"path,path\n", r"a\.csv:1"),
        ("a.csv", b"", r"a\.csv:1"),
        ("a.csv", b"path,labels\n" + b"x" * 2_000_000, r"a\.csv:2"),
        ("a.jsonl", b'{"path": "x"}\n\n{"path": \n', r"a\.jsonl:3"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1"),
        ("a.jsonl", b"[" * 100_000, r"a\.jsonl:1"),
        ("a.parquet", b"PAR1 and nothing else", r"a\.parquet"),
        ("a.xlsx", b"", r"a\.xlsx"),
    ],
)
def test_problems_name_file_and_line(tmp_path: Path, name: str, content: bytes, place: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"E105 Table problem in {place}\."):
        list(read_rows(tmp_path / name, COLUMNS))


def test_comments_are_skipped_only_when_asked_and_still_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("# made by hand\npath,labels\n#x,y\nz,y\n")
    assert [(row.line, row.values["path"]) for row in read_rows(path, COLUMNS, comments=True)] == [(4, "z")]
    path.write_text("path,labels\n#x,y\n")
    assert [row.values["path"] for row in read_rows(path, COLUMNS)] == ["#x"]


def test_quoted_cells_may_hold_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('path,labels\nx,"a\nb"\ny,c\n')
    assert [(row.line, row.values["labels"]) for row in read_rows(path, COLUMNS)] == [(3, "a\nb"), (4, "c")]


def test_text_is_streamed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path,labels\nx,y\nbroken\n")
    stream = read_rows(path, COLUMNS)
    assert next(stream).values == {"path": "x", "labels": "y"}
    with pytest.raises(InputError, match=r"a\.csv:3"):
        next(stream)


def test_parquet_is_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BATCH_ROWS", 2)
    (tmp_path / "a.parquet").write_bytes(as_parquet([{"path": str(n), "labels": "x"} for n in range(5)]))
    assert [row.line for row in read_rows(tmp_path / "a.parquet", COLUMNS)] == [1, 2, 3, 4, 5]


def test_a_missing_table_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        list(read_rows(tmp_path / "gone.csv", COLUMNS))
