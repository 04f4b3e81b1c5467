"""How the command line speaks: data on stdout, everything else on stderr, colours and bars on terminals only."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from retclip.core.errors import RetclipError

_LOG_SECONDS = 30.0


@dataclass(frozen=True)
class Speech:
    """Settings of one invocation: `json` prints data as JSON, `quiet` keeps stderr for errors."""

    json: bool = False
    quiet: bool = False

    def data(self, value: Any, table: Table | str | None = None) -> None:
        """The result of a command: JSON under --json, else the table or text."""
        if self.json:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n")
            return
        console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
        if isinstance(table, str):
            console.print(table, markup=False, soft_wrap=True)
        elif table is not None:
            console.print(table)

    def note(self, text: str) -> None:
        """A remark for people."""
        if not self.quiet:
            Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)

    @contextmanager
    def progress(self, title: str, unit: str) -> Iterator[ProgressLine]:
        """A bar on a terminal, one line every 30 seconds elsewhere."""
        if self.quiet:
            yield ProgressLine(title, unit, None, silent=True)
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[extra]}"),
            )
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                yield ProgressLine(title, unit, bar)
        else:
            yield ProgressLine(title, unit, None)


class ProgressLine:
    """One running count, shown as a bar or as log lines."""

    def __init__(self, title: str, unit: str, bar: Progress | None, *, silent: bool = False) -> None:
        self._title, self._unit, self._bar, self._silent = title, unit, bar, silent
        self._task = bar.add_task(title, extra="") if bar else None
        self._start = self._last = time.monotonic()

    def update(self, done: int, total: int | None, extra: str = "") -> None:
        """Set the count; `total` is None where nobody knows it, `extra` a short remark such as `12 failed`."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, extra=extra)
            return
        now = time.monotonic()
        if self._silent or (now - self._last < _LOG_SECONDS and done != total):
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        left = f", {(total - done) / rate if rate else float('inf'):.0f} s left" if total is not None else ""
        count = f"{done}/{total}" if total is not None else f"{done}"
        print(
            f"{self._title}: {count} {self._unit}, {rate:.2f}/s{left}, {extra}".removesuffix(", "),
            file=sys.stderr,
            flush=True,
        )


def make_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """A plain table; numbers are right-aligned by giving their column a name that ends in a blank."""
    table = Table(title=title, box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column.strip(), justify="right" if column.endswith(" ") else "left", overflow="fold")
    for row in rows:
        # Text, not str: class names and paths may look like Rich markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    return table


def error_text(error: RetclipError, *, as_json: bool) -> str:
    """Three lines for people, or one JSON object."""
    if as_json:
        value: Mapping[str, Any] = {
            "error": {
                "code": error.code,
                "message": error.what,
                "why": error.why,
                "hint": error.fix,
                "docs_url": f"docs/errors.md#{error.code.lower()}",
            }
        }
        return json.dumps(value, ensure_ascii=False)
    return f"error {error}"
