"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from retclip.core.errors import InputError, ResourceError, RetclipError


def prepare_folder(folder: Path) -> None:
    """Make the folder and its parents. Raises InputError E131 or ResourceError E401."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(folder, error) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A binary file beside `path` that takes its name when the block ends well, and vanishes when it does not.

    Raises:
        InputError: E131, the folder is missing, no folder or not writable.
        ResourceError: E401, the disk is full.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise _explained(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write one file atomically and return its path. Raises what `atomic_file` raises."""
    with atomic_file(path) as file:
        file.write(data)
    return path


def write_json(path: Path, value: Any) -> Path:
    """Write readable UTF-8 JSON atomically; NaN and infinity are refused because JSON has no word for them."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1)
    return write_bytes(path, (text + "\n").encode("utf-8", errors="replace"))


def _explained(path: Path, error: OSError) -> RetclipError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            "E401",
            f"The disk is full: {path} was not written.",
            why=str(error),
            fix="Free some space or choose another folder.",
        )
    return InputError(
        "E131",
        f"Cannot write to {path}.",
        why=str(error),
        fix="Choose a folder that exists or can be made, and that you may write to.",
    )
