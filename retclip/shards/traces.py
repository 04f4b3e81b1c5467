"""Looks for byte strings in files, many at once: the proof that what was erased is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

WINDOW_BYTES = 8
_ANCHORS = 64  # places of a string that are tried for a window that is unlike other data
_CHUNK_BYTES = 1 << 22


class Traces:
    """Finds any of some byte strings (each of at least 8 bytes) at any place of a file.

    Each string is recognised by 8 of its bytes, those with most different values, and then compared whole.
    """

    def __init__(self, strings: Collection[bytes]) -> None:
        self._longest = max(map(len, strings), default=WINDOW_BYTES)
        self._strings: dict[int, list[tuple[int, bytes]]] = {}
        for string in sorted(set(strings)):
            anchor = max(range(min(len(string) - WINDOW_BYTES + 1, _ANCHORS)), key=lambda n: _variety(string, n))
            window = int.from_bytes(string[anchor : anchor + WINDOW_BYTES], "little")
            self._strings.setdefault(window, []).append((anchor, string))
        self._windows = np.array(sorted(self._strings), np.uint64)
        # Most places of a file are ruled out by two bytes, before eight are put together.
        self._starts = np.zeros(1 << 16, np.bool_)
        self._starts[(self._windows & np.uint64(0xFFFF)).astype(np.int64)] = True

    def in_file(self, path: Path) -> Iterator[bytes]:
        """Every occurrence of a string in a file; one that ends in a later chunk is found with that chunk."""
        kept = b""
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                data = kept + chunk
                # What begins in the part that was searched before and ends there was told before.
                yield from (string for string, end in self._in_bytes(data) if end > len(kept))
                kept = data[-(self._longest - 1) :]

    def _in_bytes(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """(string, place behind its last byte) of every occurrence."""
        for place, window in self._candidates(data):
            for anchor, string in self._strings[window]:
                begin = place - anchor
                if begin >= 0 and data[begin : begin + len(string)] == string:
                    yield string, begin + len(string)

    def _candidates(self, data: bytes) -> Iterator[tuple[int, int]]:
        """(place, window) where a window of one of the strings stands."""
        values: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8)
        if len(values) < WINDOW_BYTES:
            return
        count = len(values) - WINDOW_BYTES + 1
        pairs = values[:count].astype(np.uint16) | values[1 : count + 1].astype(np.uint16) << 8
        places = np.flatnonzero(self._starts[pairs])
        windows = np.zeros(len(places), np.uint64)
        for byte in range(WINDOW_BYTES):
            windows |= values[places + byte].astype(np.uint64) << np.uint64(8 * byte)
        known = np.isin(windows, self._windows)
        yield from zip(places[known].tolist(), windows[known].tolist(), strict=True)


def _variety(string: bytes, place: int) -> int:
    return len(set(string[place : place + WINDOW_BYTES]))
