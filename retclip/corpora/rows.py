"""Rows of CSV, TSV, JSON-lines and Parquet files, one at a time, with the line each stands on."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow
import pyarrow.parquet

from retclip.core.errors import InputError

MAX_LINE_BYTES = 1 << 20
_BATCH_ROWS = 1024


class Row(NamedTuple):
    """line: 1-based line of a text file, or row of a Parquet file; values: by column, strings in CSV and TSV."""

    line: int
    values: dict[str, Any]


def read_rows(path: Path, columns: frozenset[str], comments: bool = False) -> Iterator[Row]:
    """Stream the rows of a table; only one row (Parquet: 1,024) is in memory.

    Args:
        path: `.csv`, `.tsv`, `.jsonl` (or `.ndjson`), `.parquet`.
        columns: those wanted; others are left out, columns that are absent are not an error here.
        comments: skip lines of a CSV or TSV file that start with `#`.

    Raises:
        InputError: E105 naming the file and line for anything that is no table.
    """
    reader = _READERS.get(path.suffix.casefold())
    if reader is None:
        raise table_problem(path, None, f"Tables end in {', '.join(_READERS)}.", "Convert the file.")
    try:
        yield from reader(path, columns, comments)
    except (OSError, pyarrow.ArrowException) as error:
        raise table_problem(path, None, f"It cannot be read: {error}", "Check the file, or write it again.") from error


def is_table(path: Path) -> bool:
    """Whether the name of a file says that `read_rows` can read it."""
    return path.suffix.casefold() in _READERS


def table_problem(path: Path, line: int | None, why: str, fix: str) -> InputError:
    """Error E105, `file:line` if there is a line."""
    place = f"{path.name}:{line}" if line else path.name
    return InputError("E105", f"Table problem in {place}.", why=why, fix=fix)


def _read_delimited(path: Path, columns: frozenset[str], comments: bool) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = _NumberedLines(path, file, comments)
        header = next(lines, "")
        delimiter = _delimiter(path, header)
        try:
            names = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter), [])]
            if not any(names) or len(set(names)) != len(names):
                why = "The first line must name every column, each once."
                raise table_problem(path, 1, why, "Add a header line.")
            for cells in csv.reader(lines, delimiter=delimiter, strict=True):
                if cells and len(cells) != len(names):
                    why = f"It has {len(cells)} columns, the header has {len(names)}."
                    raise table_problem(path, lines.line, why, "Quote values that contain the delimiter.")
                if cells:
                    values = {name: cell for name, cell in zip(names, cells, strict=True) if name in columns}
                    yield Row(lines.line, values)
        except csv.Error as error:
            raise table_problem(path, lines.line, str(error), "Mend the quotes of this line.") from error


class _NumberedLines:
    """UTF-8 lines of a file; `line` is the number of the last one, comments included."""

    def __init__(self, path: Path, file: BinaryIO, comments: bool) -> None:
        self._path, self._file, self._comments = path, file, comments
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while data := self._file.readline(MAX_LINE_BYTES + 1):
            self.line += 1
            if len(data) > MAX_LINE_BYTES:
                why = f"It is longer than {MAX_LINE_BYTES:,} bytes."
                raise table_problem(self._path, self.line, why, "Check for a quote that is never closed.")
            try:
                text = data.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise table_problem(self._path, self.line, str(error), "Save the table as UTF-8.") from error
            if not (self._comments and text.startswith("#")):
                return text
        raise StopIteration


def _delimiter(path: Path, header: str) -> str:
    if path.suffix.casefold() == ".tsv":
        return "\t"
    return max(",\t;|", key=header.count)


def _read_json_lines(path: Path, columns: frozenset[str], comments: bool) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = _NumberedLines(path, file, comments=False)
        for text in lines:
            if not text.strip():
                continue
            try:
                values = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise table_problem(
                    path, lines.line, f"It is no JSON: {error}", "Write one object per line."
                ) from error
            if not isinstance(values, dict):
                raise table_problem(path, lines.line, "It is no JSON object.", "Write one object per line.")
            yield Row(lines.line, {name: value for name, value in values.items() if name in columns})


def _read_parquet(path: Path, columns: frozenset[str], comments: bool) -> Iterator[Row]:
    with pyarrow.parquet.ParquetFile(path) as file:
        chosen = [name for name in file.schema_arrow.names if name in columns]
        line = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=chosen):
            for values in batch.to_pylist():
                line += 1
                yield Row(line, values)


_READERS: dict[str, Callable[[Path, frozenset[str], bool], Iterator[Row]]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
