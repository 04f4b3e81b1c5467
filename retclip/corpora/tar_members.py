"""Members of tar archives from strangers: streamed, never unpacked to disk, bounded in size."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Self

MAX_MEMBER_BYTES = 64 << 20
# Names and attributes that do not fit into a header are read whole by tarfile, whatever size they claim.
_MAX_EXTENSION_BYTES = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
# Types of headers as bytes: pax, Solaris, and GNU's long names.
_EXTENSIONS = frozenset({b"x", b"g", b"X", b"L", b"K"})
# RecursionError: tarfile follows chains of extensions by recursion.
_DAMAGE = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, RecursionError)


class Member(NamedTuple):
    """name: path inside the archive, relative; data: its bytes, None where the caller did not want them."""

    name: str
    data: bytes | None


class BrokenArchive(Exception):
    """The archive ends early or is damaged; the members before were whole."""


class RefusedMember(NamedTuple):
    """A member that is not read, and why."""

    name: str
    why: str


def read_members(path: Path, endings: tuple[str, ...]) -> Iterator[Member | RefusedMember]:
    """Regular files of a tar archive (plain, gzip, bzip2 or xz) in the order they stand.

    One member is in memory; of archives that are not compressed only the wanted ones are read at all. Refused are
    links, devices, names that are absolute or hold `..`, and members above `MAX_MEMBER_BYTES`; folders are passed over.

    Args:
        path: the archive.
        endings: lower-case name endings of the members whose bytes are wanted.

    Raises:
        BrokenArchive: at the place where it cannot be read on.
    """
    try:
        with tarfile.open(path, mode=_mode(path), tarinfo=_CheckedHeader) as archive:
            while (info := archive.next()) is not None:
                # Else every header of the archive stays in memory.
                archive.members.clear()  # type: ignore[attr-defined]
                if info.isdir():
                    continue
                why = _refusal(info)
                if why:
                    yield RefusedMember(info.name[:200], why)
                    continue
                file = archive.extractfile(info) if info.name.casefold().endswith(endings) else None
                data = file.read() if file else None
                yield Member(info.name, data)
    except _DAMAGE as error:
        raise BrokenArchive(str(error) or type(error).__name__) from error


def _mode(path: Path) -> Literal["r|*", "r:"]:
    with path.open("rb") as file:
        return "r|*" if file.read(6).startswith(_COMPRESSED) else "r:"


class _CheckedHeader(tarfile.TarInfo):
    """A header that neither claims more than it may nor ends the archive silently when it is damaged."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # A block of zeros closes an archive.
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise
            raise tarfile.ReadError("damaged header" if buf else "the end is missing") from error
        if info.size < 0 or (info.type in _EXTENSIONS and info.size > _MAX_EXTENSION_BYTES):
            raise tarfile.ReadError(f"a header claims {info.size:,} bytes")
        return info


def _refusal(info: tarfile.TarInfo) -> str:
    if not info.isreg() or info.issparse():
        return "it is no regular file"
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        return "its path leads out of the archive"
    return f"it is larger than {MAX_MEMBER_BYTES:,} bytes" if info.size > MAX_MEMBER_BYTES else ""
