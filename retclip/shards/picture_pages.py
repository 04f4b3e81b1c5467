"""Reads the thumbnail cache without LMDB, which trusts every length and page number that it finds in a file.

One changed byte may lead LMDB beyond the end of its file, where the system kills the process. Here every piece is cut
out of the file and compared with its length first, so that damage ends in `BadPage`. The layout is that of LMDB 0.9.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

_PAGE = struct.Struct("<QHHHH")  # number, unused, kind, end of the node offsets, begin of the nodes
_META = struct.Struct("<16xII16xI84xQQQ")  # magic, format, bytes of a page; root, last page, number of the transaction
_NODE = struct.Struct("<HHHH")  # two halves of the value's length or of a page number, flags, bytes of the key
_MAGIC = (0xBEEFC0DE, 1)
_BRANCH, _LEAF, _OVERFLOW, _KINDS = 1, 2, 4, 7
_BIG = 1  # flag of a node whose value stands on pages of its own
_NO_ROOT = (1 << 64) - 1
_PAGE_BYTES = (512, 65_536)
_DEPTH = 32  # as many levels as LMDB allows


class BadPage(Exception):
    """The file is no whole LMDB environment of this format."""


class _Node(NamedTuple):
    key: bytes
    number: int  # length of the value, or lower bits of a page number in a branch
    flags: int
    rest: bytes  # of the page, behind the key


class PictureFile:
    """The newest state of a data.mdb. A writer may replace its pages meanwhile, so callers check what they get."""

    def __init__(self, descriptor: int, longest: int) -> None:
        self._descriptor, self._longest = descriptor, longest
        self._page_bytes = _META.unpack(self._read(0, _META.size))[2]
        if not _PAGE_BYTES[0] <= self._page_bytes <= _PAGE_BYTES[1]:
            raise BadPage(f"pages of {self._page_bytes} bytes")
        self._pages = os.fstat(descriptor).st_size // self._page_bytes
        metas = [_META.unpack(self._read(place, _META.size)) for place in (0, self._page_bytes)]
        states = [(meta[5], meta[3]) for meta in metas if meta[:3] == (*_MAGIC, self._page_bytes)]
        if not states:
            raise BadPage("no page that says where the others are")
        self._root = max(states)[1]

    @classmethod
    @contextmanager
    def open(cls, data: Path, longest: int) -> Iterator[Self]:
        """Open a file whose values have at most `longest` bytes. Raises BadPage and OSError."""
        descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield cls(descriptor, longest)
        finally:
            os.close(descriptor)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key. Raises BadPage."""
        number = self._root
        for _ in range(_DEPTH if number != _NO_ROOT else 0):
            kind, nodes = self._nodes(number)
            if kind == _LEAF:
                return next((self._value(node) for node in nodes if node.key == key), None)
            # The first node of a branch has no key: everything that is smaller than the second stands below it.
            number = _child([node for place, node in enumerate(nodes) if place == 0 or node.key <= key][-1])
        if number != _NO_ROOT:
            raise BadPage("a tree without leaves")
        return None

    def __iter__(self) -> Iterator[bytes]:
        """Every key; no value is read. Raises BadPage."""
        return (node.key for node in self._leaf_nodes())

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every key with its value. Raises BadPage."""
        return ((node.key, self._value(node)) for node in self._leaf_nodes())

    def _leaf_nodes(self) -> Iterator[_Node]:
        waiting, seen = [self._root] if self._root != _NO_ROOT else [], set[int]()
        while waiting:
            number = waiting.pop()
            if number in seen:
                raise BadPage(f"page {number} stands below itself or twice in the tree")
            seen.add(number)
            kind, nodes = self._nodes(number)
            if kind == _LEAF:
                yield from nodes
            else:
                waiting += map(_child, nodes)

    def _read(self, place: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, place)
        if len(data) < count:
            raise BadPage(f"the file ends before byte {place + count}")
        return data

    def _kind(self, number: int) -> int:
        """Which kind of page stands at a number."""
        if number >= self._pages:
            raise BadPage(f"page {number} of {self._pages}")
        found, _, flags, _, _ = _PAGE.unpack(self._read(number * self._page_bytes, _PAGE.size))
        if found != number:
            raise BadPage(f"page {number} says that it is page {found}")
        return int(flags & _KINDS)

    def _nodes(self, number: int) -> tuple[int, list[_Node]]:
        """Kind and nodes of a branch or a leaf."""
        kind = self._kind(number)
        page = self._read(number * self._page_bytes, self._page_bytes)
        end = _PAGE.unpack_from(page)[3]
        if kind not in (_BRANCH, _LEAF) or not _PAGE.size < end <= len(page) or end % 2:
            raise BadPage(f"page {number} holds no nodes")
        nodes = []
        for (place,) in struct.iter_unpack("<H", page[_PAGE.size : end]):
            begin = place + _NODE.size
            if begin > len(page):
                raise BadPage(f"a node of page {number} stands outside it")
            low, high, flags, key_bytes = _NODE.unpack_from(page, place)
            rest = page[begin + key_bytes :]
            nodes.append(_Node(page[begin : begin + key_bytes], low | high << 16, flags, rest))
        return kind, nodes

    def _value(self, node: _Node) -> bytes:
        if node.number > self._longest:
            raise BadPage(f"a value of {node.number} bytes")
        if not node.flags & _BIG:
            return node.rest[: node.number]
        number = int.from_bytes(node.rest[:8], "little")
        if self._kind(number) != _OVERFLOW:
            raise BadPage(f"page {number} holds no value")
        return self._read(number * self._page_bytes + _PAGE.size, node.number)


def _child(node: _Node) -> int:
    """Page number of a node of a branch: its flags are the upper bits."""
    return node.number | node.flags << 32
