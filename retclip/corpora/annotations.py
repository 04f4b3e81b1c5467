"""What annotation files have in common: finding them, reading JSON from strangers, turning boxes into regions."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import ImageError, InputError

# COCO's own panoptic_train2017.json has about 0.4 GB.
MAX_JSON_BYTES = 2 << 30
MAX_TEXT_BYTES = 16 << 20


def file_names(folder: Path) -> frozenset[str]:
    """Names of the files in a folder, without its subfolders.

    Readers look names of annotations up in this set; a name with a separator or `..` is never in it, so an annotation
    cannot point outside its folder, and 100,000 pictures cost one directory scan.
    """
    with os.scandir(folder) as entries:
        return frozenset(entry.name for entry in entries if entry.is_file())


def read_json(path: Path, compact: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        compact: called with every inner object while parsing; what it returns takes the object's place, which keeps
            the parsed form of large files small.

    Raises:
        InputError: E103 if the file cannot be read, is larger than `MAX_JSON_BYTES` or holds no JSON object.
    """
    content = _parse_json(path, compact)
    if not isinstance(content, dict):
        raise InputError("E103", f"{path} is not an annotation file.", why="Its content is no JSON object.")
    return content


def read_json_list(path: Path) -> list[Any]:
    """Read a JSON list. Raises InputError E103 as `read_json` does."""
    content = _parse_json(path, None)
    if not isinstance(content, list):
        raise InputError("E103", f"{path} is not a list.", why="Its content is no JSON list.")
    return content


def _parse_json(path: Path, compact: Callable[[dict[str, Any]], Any] | None) -> Any:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError("E103", f"{path} is too large.", why=f"The limit is {MAX_JSON_BYTES:,} bytes.")
        return json.loads(path.read_bytes(), object_hook=compact)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            "E103",
            f"Cannot read {path}.",
            why=f"{type(error).__name__}: {error}",
            fix="Copy or download the file again.",
        ) from error


def missing_files(what: str, missing: Sequence[str]) -> list[str]:
    """At most one warning: how many files are missing and the first few names."""
    if not missing:
        return []
    more = ", ..." if len(missing) > 3 else ""
    return [f"{len(missing):,} {what}: {', '.join(missing[:3])}{more}"]


def check_size(name: str, annotation: tuple[int, ...], picture: tuple[int, int]) -> None:
    """Raise ImageError E116 unless a label image has the (height, width) of the upright picture."""
    if annotation != picture:
        raise misfit(
            name,
            f"The annotation has {annotation[0]} x {annotation[1]} pixels (height x width), the upright picture has "
            f"{picture[0]} x {picture[1]}.",
        )


def misfit(name: str, why: str) -> ImageError:
    """The error for an annotation that does not belong to its picture."""
    return ImageError(
        "E116", f"The annotation of {name} does not fit.", why=why, fix="Check that both come from one release."
    )


def rectangle(
    name: str, box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float], npt.NDArray[np.bool_]]:
    """Clip a box to the picture and fill it.

    Args:
        name: of the picture, for errors.
        box: x0, y0, x1, y1 in pixels.
        size: (height, width) of the picture.

    Returns:
        The clipped box and the (H, W) bool mask of the pixels it touches.

    Raises:
        ImageError: E116 if the box has no area inside the picture.
    """
    height, width = size
    if not all(math.isfinite(value) for value in box):
        raise misfit(name, f"The box {box} is not finite.")
    x0, x1 = (min(max(value, 0.0), width) for value in (box[0], box[2]))
    y0, y1 = (min(max(value, 0.0), height) for value in (box[1], box[3]))
    if x0 >= x1 or y0 >= y1:
        raise misfit(name, f"The box {box} has no area inside {width} x {height} pixels (x0, y0, x1, y1).")
    mask = np.zeros(size, dtype=np.bool_)
    mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
    return (x0, y0, x1, y1), mask


def read_lines(path: Path) -> list[str]:
    """Lines of a small UTF-8 text file without blank ones at its end. Raises InputError E103."""
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise InputError("E103", f"{path} is too large.", why=f"The limit is {MAX_TEXT_BYTES:,} bytes.")
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("E103", f"Cannot read {path}.", why=str(error), fix="Copy the file again.") from error
