"""What can be said of a weights file without loading it: whether it is whole, and which tensors safetensors hold.

Knows no torch, so that a half copied file is named in milliseconds instead of after seconds of imports.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from retclip.core.errors import ModelError

# Bound of the safetensors format itself; a hostile header length must not become an allocation.
_MOST_HEADER_BYTES = 100_000_000
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ZIP = b"PK\x03\x04"
# How download tools mark what they have not finished.
UNFINISHED = (".part", ".partial", ".incomplete", ".crdownload", ".aria2", ".download", ".tmp")


def check_weights_file(path: Path) -> None:
    """Refuse a file that cannot be whole weights, by its first bytes and its length.

    Raises:
        ModelError: E202 for an empty, cut off or stand-in file, E204 for a TorchScript archive.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise _damaged(path, "It is empty.")
    if start.startswith(_LFS_POINTER):
        raise _damaged(path, "It is a Git LFS pointer: the repository was cloned without its large files.")
    if start.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise _damaged(path, "It is a web page: the download asked for a login or a confirmation.")
    if path.suffix == ".safetensors":
        tensor_shapes(path)
    elif start.startswith(_ZIP):
        _check_archive(path)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file, from its header alone. Raises ModelError E202 when it is not whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, _MOST_HEADER_BYTES):
            raise _damaged(path, f"Its header would have {length:,} bytes, the file has {size:,}.")
        try:
            header = json.loads(file.read(length))
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
            end = max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
            raise _damaged(path, f"Its header is not readable: {error}"[:200]) from error
    if 8 + length + end != size:
        raise _damaged(path, f"Its header announces {8 + length + end:,} bytes, the file has {size:,}.")
    return shapes


def _check_archive(path: Path) -> None:
    """PyTorch files are zip archives, whose table of contents comes last: without it the end is missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, f"Its end is missing: {error}") from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(
            "E204",
            f"{path} was not loaded.",
            why="It is a TorchScript archive, a program with its weights, and contains code objects.",
            fix="Use the safetensors release of the same network; `retclip models list --licenses` names repositories.",
        )


def unfinished_files(folder: Path) -> list[Path]:
    """Files in a folder that a download tool has not finished, also where the hub client keeps them."""
    places = (folder, folder / ".cache" / "huggingface" / "download")
    return sorted(
        file for place in places if place.is_dir() for file in place.iterdir() if file.name.endswith(UNFINISHED)
    )


def check_signature(path: Path, signature: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Refuse a safetensors file whose telling tensors are not those of network `name`.

    Args:
        signature: shapes by the end of a tensor's name; a file with none of these tensors is another network's.

    Raises:
        ModelError: E202 as `tensor_shapes`, E207 for another network. Other file formats pass: only loading tells.
    """
    if not signature or path.suffix != ".safetensors":
        return
    if why := _difference(tensor_shapes(path), signature):
        raise ModelError(
            "E207",
            f"{path} does not fit '{name}'.",
            why=why,
            fix="It holds another network: put the right file in its place, or name another model in the preset.",
        )


def has_signature(shapes: Mapping[str, tuple[int, ...]], signature: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether tensors of these shapes are those that a signature tells of."""
    return not _difference(shapes, signature)


def _difference(shapes: Mapping[str, tuple[int, ...]], signature: Mapping[str, tuple[int, ...]]) -> str:
    told = [
        (tensor, shape, tuple(wanted))
        for tensor, shape in shapes.items()
        for ending, wanted in signature.items()
        if f".{tensor}".endswith(f".{ending}")
    ]
    if not told:
        return f"missing {' or '.join(signature)}"
    return "; ".join(f"{tensor} {shape} instead of {wanted}" for tensor, shape, wanted in told if shape != wanted)


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes, as hubs publish it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(path: Path, why: str) -> ModelError:
    kind = "safetensors" if path.suffix == ".safetensors" else "weights"
    return ModelError("E202", f"{path} is not a complete {kind} file.", why=why, fix="Copy or download it again.")
