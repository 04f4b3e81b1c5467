"""`retclip doctor`: can this machine do the job, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption
from retclip.core.errors import ModelError, RetclipError

if TYPE_CHECKING:
    from retclip.presets import Preset

EPILOG = "Example: retclip doctor --db coco --models benchmarks/photo/preset.toml"
# Weights that one picture passes through; SAM's ViT-B and Grounding DINO's base take about a minute each on two cores.
_SLOW_MEGABYTES = 1500
_LOW_DISK_GB = 5


@dataclass(frozen=True)
class Finding:
    """One line: `ok`, `warn` (works, but) or `FAIL` (does not work until mended, the command leaves with exit_code)."""

    state: Literal["ok", "warn", "FAIL"]
    what: str
    fix: str = ""
    exit_code: int = ModelError.exit_code


def doctor(
    models: Annotated[str | None, typer.Option(help="Check this preset only (name or TOML file).")] = None,
    db: Annotated[
        str | None, typer.Option(help="Check this database too, and whether its preset can run here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check libraries, devices, disk, presets and databases; exit code 4 or 5 when something asked for cannot work."""
    findings: list[Finding] = []
    for check in (_libraries, _device, _storage):
        findings.extend(check())
    findings.extend(_presets(models))
    findings.extend(_databases(db))
    table = make_table(("", "finding", "fix"), [(f.state, f.what, f.fix) for f in findings])
    Speech(json).data([{"state": f.state, "what": f.what, "fix": f.fix} for f in findings], table)
    if failed := [finding for finding in findings if finding.state == "FAIL"]:
        raise typer.Exit(failed[0].exit_code)


def _libraries() -> Iterator[Finding]:
    from retclip import __version__
    from retclip.adapters.libraries import libraries

    parts = []
    for library in libraries():
        if library.fits:
            parts.append(f"{library.name} {library.installed}")
        else:
            yield Finding("FAIL", f"E206 {library.problem} (needs {library.wanted})", library.remedy)
    yield Finding("ok", f"retclip {__version__}, python {platform.python_version()}, " + ", ".join(parts))


def _device() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("ok", f"CUDA: {', '.join(names)}")
    else:
        yield Finding("warn", f"no CUDA device; {torch.get_num_threads()} CPU threads")


def _storage() -> Iterator[Finding]:
    from retclip.shards import home

    place = home()
    probe = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(probe).free / 1e9
    writable = probe.is_dir() and os.access(probe, os.W_OK)
    state: Literal["ok", "warn", "FAIL"] = "FAIL" if not writable else "warn" if free < _LOW_DISK_GB else "ok"
    yield Finding(
        state,
        f"databases in {place}: {free:.0f} GB free{'' if writable else ', not writable'}",
        "" if state == "ok" else "set RETCLIP_HOME to a folder with room",
    )


def _presets(asked: str | None) -> Iterator[Finding]:
    from retclip.presets import available_presets, load_preset

    for name in (asked,) if asked else available_presets():
        preset = load_preset(name)
        problems = list(_lacking(preset))
        for error in problems:
            text = f"preset {preset.name}: {error.code} {error.what}"
            yield Finding("FAIL" if asked else "warn", text, error.fix, error.exit_code)
        if not problems:
            yield _runnable(preset)


def _lacking(preset: Preset) -> Iterator[RetclipError]:
    """All that keeps a preset from building and asking here: missing networks as one, damaged ones each."""
    from retclip.adapters.model_files import missing_models, survey
    from retclip.presets.model_cards import models_of

    places = survey(models_of(preset))
    yield from (place.problem for place in places if place.problem)
    if missing := [place.needed for place in places if place.found is None and place.problem is None]:
        yield missing_models(missing, preset.name)


def _runnable(preset: Preset) -> Finding:
    import torch

    from retclip.presets.model_cards import models_of, segmenting_roles

    needed = models_of(preset)
    text = f"preset {preset.name}: " + ", ".join(f"{model.role} {model.name}" for model in needed)
    megabytes = sum(model.card.megabytes for model in needed if model.role in segmenting_roles(preset))
    if megabytes > _SLOW_MEGABYTES and not torch.cuda.is_available():
        return Finding("warn", f"{text}; minutes a picture without a GPU", "use --preset cpu-lite or cpu")
    return Finding("ok", text)


def _databases(asked: str | None) -> Iterator[Finding]:
    from retclip.adapters.model_files import find_models
    from retclip.assembly import choose_preset
    from retclip.presets.model_cards import segmenting_roles
    from retclip.shards import list_databases, open_database, unfinished_jobs

    for name in (asked,) if asked else [str(path) for path in list_databases()]:
        shown = name
        try:
            database = open_database(name)
            shown = database.name
            preset = choose_preset(None, database)
            find_models(preset, segmenting_roles(preset))
        except RetclipError as error:
            state: Literal["warn", "FAIL"] = "FAIL" if asked else "warn"
            yield Finding(state, f"database {shown}: {error.code} {error.what}", error.fix, error.exit_code)
            continue
        held = f"{len(database):,} segments, {len(database.classes)} classes"
        if jobs := unfinished_jobs(database.path):
            text = f"database {shown} version {database.version}: {held}, {len(jobs)} interrupted builds"
            yield Finding("warn", text, "run the same index command again")
        elif newer := ", ".join(map(str, database.passed_over)):
            text = f"database {shown} version {database.version}: {held}; version {newer} is damaged and passed over"
            yield Finding("warn", text, f"retclip db verify {name}")
        else:
            yield Finding("ok", f"database {shown} version {database.version}: {held}")
