"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retclip.core.errors import InputError

NameArgument = Annotated[str, typer.Argument(help="Name or path, NAME@7 for version 7.", metavar="NAME")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]
PresetOption = Annotated[
    str | None, typer.Option(help="Preset name or TOML file; default: the database's own, else cpu.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
RootOption = Annotated[Path | None, typer.Option(help="Where the corpus lies; default: $RETCLIP_DATA/<source>.")]
SplitOption = Annotated[str | None, typer.Option(help="Part of the corpus, e.g. train or val.")]
ClassesOption = Annotated[
    str | None,
    typer.Option(help="Class list: @coco133, a file, or names separated by commas.", metavar="FILE|LIST|@NAME"),
]


def parse_share(text: str) -> float:
    """`1%` -> 0.01, `5` -> 5.0 (a number of pictures), `0` -> 0.0. Raises InputError E123."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not value >= 0 or (text.endswith("%") and value > 1):
        raise InputError(
            "E123",
            f"--max-failures '{text}' is no share and no number.",
            why="Expected e.g. 1% or 5.",
            fix="Correct it.",
        )
    # One hundred per cent is a share, not the number one.
    return float("inf") if text.endswith("%") and value == 1 else value
