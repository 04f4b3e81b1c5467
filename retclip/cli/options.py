"""Options that several commands share, so that they read and mean the same everywhere."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args, get_type_hints

import typer

from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.presets import Preset
    from retclip.shards.layers import Layering

NameArgument = Annotated[str, typer.Argument(help="Name or path, NAME@7 for version 7.", metavar="NAME")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]
PresetOption = Annotated[
    str | None, typer.Option(help="Preset name or TOML file; default: the database's own, else cpu.")
]
DATABASES = typer.Option(help="Name or path, NAME@7 for version 7; several, the most important first: mine,ade20k.")
ASKED = typer.Option(
    help="Name or path, NAME@7 for version 7; several, the most important first: mine,ade20k; lancedb:DIR, qdrant:URL."
)
DatabasesOption = Annotated[str, ASKED]
LayersOption = Annotated[
    str, typer.Option(help="A class of several databases: first (only the first one's segments) or merged (all).")
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


def too_many(failures: int, total: int, allowed: float) -> bool:
    """Whether more of `total` failed than `parse_share` of --max-failures allows: a share below 1, or a number."""
    return failures > (allowed if allowed >= 1 else allowed * total)


def parse_layering(text: str) -> Layering:
    """`first` or `merged`. Raises InputError E120."""
    layerings: dict[str, Layering] = {"first": "first", "merged": "merged"}
    if text not in layerings:
        raise InputError("E120", f"Unknown --layers '{text}'.", why="Known are first and merged.", fix="Correct it.")
    return layerings[text]


def change_settings(preset: Preset, changes: Sequence[str]) -> Preset:
    """The preset with `section.name=value` changes, values as in TOML; checked like a preset file."""
    from retclip.presets import preset_from_mapping, preset_to_mapping

    table = preset_to_mapping(preset)
    for change in changes:
        key, separator, text = change.partition("=")
        section, _, name = key.strip().partition(".")
        if not separator or not isinstance(table.get(section), dict) or not name:
            why = "Expected section.name=value, e.g. fusion.gamma=0.5."
            raise InputError("E143", f"--set {change} names no setting.", why=why, fix="See the presets for names.")
        try:
            table[section][name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[section][name] = text.strip()
    return preset_from_mapping(table, "--set")


def proposal_kinds() -> tuple[str, ...]:
    """What --proposals may say beside a folder: `preset`, or a kind."""
    from retclip.presets import ProposalSettings

    return ("preset", *get_args(get_type_hints(ProposalSettings)["kind"]))


def proposed(preset: Preset, kind: str) -> Preset:
    """The preset with proposals of another kind; `preset` leaves them as they are. Raises InputError E160 or E144."""
    known = proposal_kinds()
    if kind not in known:
        raise InputError(
            "E160", f"Unknown --proposals '{kind}'.", why=f"Known are {', '.join(known)}.", fix="Correct it."
        )
    if kind in ("preset", preset.proposals.kind):
        return preset
    try:
        return preset.with_proposals(kind)
    except ValueError as error:
        raise InputError(
            "E144", f"Preset '{preset.name}' has no {kind} proposals.", why=f"{error}.", fix="Choose another --preset."
        ) from error
