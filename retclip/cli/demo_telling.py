"""How the demo tells what it does: every command as a user would type it, run by this very program, and kept."""

from __future__ import annotations

import io
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retclip.cli.console import Speech
from retclip.reports.demo_page import Chapter, Measured

# Nothing of the user's own may change what the demo shows, and nothing may be asked of the network.
_UNSET = ("RETCLIP_DATA",)


@dataclass
class Step:
    """One step while it is carried out."""

    title: str
    speech: Speech
    commands: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    measured: Measured | None = None

    def run(self, *words: str | Path, takes_long: bool = False) -> Any:
        """Show and run one command of this program; returns its data. Those that take long show how far they are."""
        self.typed("retclip", *words)
        quiet = [] if takes_long and not self.speech.quiet else ["--quiet"]
        return json.loads(_output([*map(str, words), "--json", *quiet]))

    def show(self, *words: str | Path) -> None:
        """Show and run one command, and tell what it prints for people."""
        self.typed("retclip", *words)
        self.remark(_output([*map(str, words), "--quiet"]).rstrip())

    def typed(self, *words: str | Path) -> None:
        """Show a command."""
        self.commands.append(shlex.join(map(str, words)))
        self.speech.note(f"   $ {self.commands[-1]}")

    def remark(self, text: str) -> None:
        """Say what came of it."""
        self.remarks.append(text)
        self.speech.note("\n".join(f"   {line}" for line in text.splitlines()))


class Telling:
    """Numbers the steps, takes their time, and keeps them as chapters."""

    def __init__(self, speech: Speech) -> None:
        self.chapters: list[Chapter] = []
        self._speech = speech

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """A step that becomes a chapter when it ends well."""
        began, step = time.perf_counter(), Step(title, self._speech)
        self._speech.note(f"\n{len(self.chapters) + 1}. {title}")
        yield step
        seconds = time.perf_counter() - began
        self.chapters.append(Chapter(title, tuple(step.commands), tuple(step.remarks), seconds, step.measured))


def _output(words: list[str]) -> str:
    """What a command of this program prints on stdout; its errors pass, and so does Ctrl-C."""
    from typer.main import get_command

    from retclip.cli.main import app

    command, printed = get_command(app), io.StringIO()
    with redirect_stdout(printed), command.make_context("retclip", words) as context:
        command.invoke(context)
    return printed.getvalue()


@contextmanager
def own_home(home: Path) -> Iterator[None]:
    """Databases and caches live in `home`, and no hub is asked, until the block ends."""
    wanted = {"RETCLIP_HOME": str(home.resolve()), "RETCLIP_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in (*wanted, *_UNSET)}
    os.environ.update(wanted)
    for name in _UNSET:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
