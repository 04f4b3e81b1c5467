"""`retclip doctor`: can this machine do the job, and what is missing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

import typer

from retclip.cli.console import Speech, make_table
from retclip.cli.options import JsonOption
from retclip.core.errors import ModelError, RetclipError

EPILOG = "Example: retclip doctor --db coco --models benchmarks/photo/preset.toml"
_LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "open_clip_torch",
    "numpy",
    "pillow",
    "scikit-image",
    "pycocotools",
    "pyarrow",
    "lmdb",
)
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

    parts = []
    for name in _LIBRARIES:
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield Finding("FAIL", f"{name} is not installed", f"pip install {name}")
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
    from retclip.assembly import find_weights
    from retclip.presets import available_presets, load_preset

    for name in (asked,) if asked else available_presets():
        preset = load_preset(name)
        try:
            weights = find_weights(preset.encoder)
        except RetclipError as error:
            yield Finding(
                "FAIL" if asked else "warn", f"preset {preset.name}: {error.what}", error.fix, error.exit_code
            )
            continue
        if weights is None:
            text = f"preset {preset.name}: {preset.encoder.model}, weights from the hub at first use"
            yield Finding("warn", text, "connect once, or name a weights file in the preset")
        else:
            yield Finding("ok", f"preset {preset.name}: {preset.encoder.model}, weights {weights}")


def _databases(asked: str | None) -> Iterator[Finding]:
    from retclip.assembly import choose_preset, find_weights
    from retclip.shards import list_databases, open_database, unfinished_jobs

    for name in (asked,) if asked else [str(path) for path in list_databases()]:
        shown = name
        try:
            database = open_database(name)
            shown = database.name
            find_weights(choose_preset(None, database).encoder)
        except RetclipError as error:
            state: Literal["warn", "FAIL"] = "FAIL" if asked else "warn"
            yield Finding(state, f"database {shown}: {error.code} {error.what}", error.fix, error.exit_code)
            continue
        held = f"{len(database):,} segments, {len(database.classes)} classes"
        if jobs := unfinished_jobs(database.path):
            text = f"database {shown} version {database.version}: {held}, {len(jobs)} interrupted builds"
            yield Finding("warn", text, "run the same index command again")
        else:
            yield Finding("ok", f"database {shown} version {database.version}: {held}")
