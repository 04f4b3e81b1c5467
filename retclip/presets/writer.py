"""Presets as TOML, so that what a program found can be read, kept and given to others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from retclip.presets.reader import preset_to_mapping
from retclip.presets.settings import Preset


def preset_to_toml(preset: Preset, comment: str = "") -> str:
    """TOML text that `load_preset` reads back to an equal preset (but for the name, which a file takes from itself).

    Args:
        comment: lines to stand before everything else.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    for section, values in preset_to_mapping(preset).items():
        if isinstance(values, Mapping):
            lines += ["", f"[{section}]", *(f"{key} = {_text(value)}" for key, value in values.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_text(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    # JSON writes strings, booleans, whole and decimal numbers as TOML does, but for the DEL character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)
