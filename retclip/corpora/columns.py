"""A few columns of very large CSV files, one row at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from retclip.corpora.rows import MAX_LINE_BYTES, table_problem


def read_columns(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[tuple[str, ...]]:
    """Stream some columns of a CSV file with a header; one row is in memory.

    Args:
        path: a UTF-8 file; a line may have `MAX_LINE_BYTES` characters.
        columns: names that the header must have (at least two with the optional ones), compared without regard to case.
        optional: names that it may have; the value of an absent one is empty.

    Raises:
        InputError: E105 naming the file and line.
    """
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # An over-long line arrives in parts, which then lack columns.
            rows = csv.reader(iter(lambda: file.readline(MAX_LINE_BYTES), ""), strict=True)
            header = [name.strip().casefold() for name in next(rows, [])]
            places = _find_places(path, header, columns, optional)
            width, pick = len(header), itemgetter(*places)
            for row in rows:
                line = rows.line_num
                if len(row) != width:
                    if not row:
                        continue
                    why = f"It has {len(row)} columns, the header has {width}."
                    raise table_problem(path, line, why, "Download the file again.")
                row.append("")
                yield pick(row)
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise table_problem(path, line, str(error), "Download the file again.") from error


def _find_places(path: Path, header: list[str], columns: Sequence[str], optional: Sequence[str]) -> list[int]:
    missing = [name for name in columns if name.casefold() not in header]
    if missing:
        raise table_problem(path, 1, f"The header lacks {', '.join(missing)}.", "Download the file again.")
    # Absent columns point at the empty text that every row gets at its end.
    names = [name.casefold() for name in (*columns, *optional)]
    return [header.index(name) if name in header else len(header) for name in names]
