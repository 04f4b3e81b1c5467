"""Strict reading of presets: unknown keys, wrong types and values outside their range are errors with a suggestion."""

from __future__ import annotations

import difflib
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retclip.core.errors import InputError
from retclip.presets.settings import Preset

T = TypeVar("T")
CATALOGUE = "models.toml"


def available_presets() -> tuple[str, ...]:
    """Names of the presets that ship with the package."""
    entries = (entry.name for entry in files("retclip.presets").iterdir())
    return tuple(sorted(Path(name).stem for name in entries if name.endswith(".toml") and name != CATALOGUE))


def load_preset(name_or_file: str) -> Preset:
    """A preset by name or from a TOML file. Relative weights are looked up beside the file. Raises InputError."""
    path = Path(name_or_file)
    if path.suffix == ".toml":
        if not path.is_file():
            raise InputError(
                "E140",
                f"Preset file {path} does not exist.",
                why="The value ends in .toml, so it is read as a file.",
                fix=f"Give an existing file or one of: {', '.join(available_presets())}.",
            )
        return _parse(path.read_bytes(), str(path), path.parent, path.stem)
    names = available_presets()
    if name_or_file not in names:
        close = difflib.get_close_matches(name_or_file, names, n=1)
        raise InputError(
            "E141",
            f"There is no preset '{name_or_file}'.",
            why=f"Did you mean '{close[0]}'?" if close else "Presets that ship: " + ", ".join(names) + ".",
            fix="Give one of them, or the path of a .toml file.",
        )
    return _parse((files("retclip.presets") / f"{name_or_file}.toml").read_bytes(), name_or_file, None, name_or_file)


def _parse(data: bytes, origin: str, folder: Path | None, name: str) -> Preset:
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            "E142", f"{origin} is not valid TOML.", why=str(error), fix="Correct the line named above."
        ) from error
    preset = preset_from_mapping({"name": name, **table}, origin)
    return preset if folder is None else _with_weights_beside(preset, folder)


def _with_weights_beside(preset: Preset, folder: Path) -> Preset:
    """The same preset, with absolute paths of those weights that lie beside it."""

    def beside(weights: str) -> str:
        place = folder / weights
        return str(place.resolve()) if weights not in ("", "hub") and place.exists() else weights

    return replace(
        preset,
        encoder=replace(preset.encoder, weights=beside(preset.encoder.weights)),
        detector=replace(preset.detector, weights=beside(preset.detector.weights)),
        masker=replace(preset.masker, weights=beside(preset.masker.weights)),
    )


def preset_from_mapping(table: Mapping[str, Any], origin: str) -> Preset:
    """Plain tables -> Preset. `origin` names the file in errors."""
    return from_table(Preset, table, origin)


def preset_to_mapping(preset: Preset) -> dict[str, Any]:
    """Plain JSON types, the inverse of `preset_from_mapping`."""
    table: dict[str, Any] = _plain(asdict(preset))
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def from_table(kind: type[T], table: Mapping[str, Any], origin: str, prefix: str = "") -> T:
    """Plain tables -> a dataclass, strictly. `prefix` stands before keys in errors, InputError E143 to E145."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in table:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=1)
            raise InputError(
                "E143",
                f"{origin}: unknown setting '{prefix}{key}'.",
                why=f"Did you mean '{prefix}{close[0]}'?" if close else f"Known here: {', '.join(names)}.",
                fix="Correct or remove it.",
            )
    values = {key: _convert(hints[key], value, origin, prefix + key) for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(
            "E144", f"{origin}: {error}.", why="The value is outside its range.", fix="Correct the setting."
        ) from error


def _convert(kind: Any, value: Any, origin: str, key: str) -> Any:
    if is_dataclass(kind) and isinstance(value, Mapping):
        return from_table(kind, value, origin, key + ".")  # type: ignore[arg-type]
    if not _fits(kind, value):
        shown = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise InputError(
            "E145", f"{origin}: '{key}' is {value!r}.", why=f"Expected {shown}.", fix="Correct the setting."
        )
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return tuple(float(entry) if item is float else entry for entry in value)
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_fits(argument, value) for argument in arguments)
    if origin is tuple:
        length_fits = arguments[-1] is Ellipsis or (isinstance(value, (list, tuple)) and len(value) == len(arguments))
        return isinstance(value, (list, tuple)) and length_fits and all(_fits(arguments[0], entry) for entry in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(arguments[1], entry) for entry in value.values())
    if kind is float:
        # TOML can write nan, inf and integers beyond any float; none of them is a setting.
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and abs(value) <= sys.float_info.max
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
