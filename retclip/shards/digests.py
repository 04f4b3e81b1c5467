"""Digests of content: the same for the same rows, however they are sorted and split (docs/database-format.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retclip.shards import tables
from retclip.shards.manifest import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

MODULUS = 1 << 256


def row_digests(table: pa.Table, vectors: npt.NDArray[np.float16]) -> list[int]:
    """Digest of each row as a 256-bit number.

    Args:
        table: rows with segment_id, mask_counts, box and label_raw.
        vectors: (n, D) the rows of vectors.f16.
    """
    ids = tables.numbers(table, "segment_id").astype("<u8").tobytes()
    box = tables.boxes(table).astype("<f8").tobytes()
    counts, labels = table["mask_counts"].to_pylist(), table["label_raw"].to_pylist()
    digests = []
    for row, vector in enumerate(vectors):
        mask = len(counts[row]).to_bytes(4, "little") + counts[row]
        place = box[32 * row : 32 * row + 32]
        digest = hashlib.sha256(ids[8 * row : 8 * row + 8] + vector.tobytes() + mask + place + labels[row].encode())
        digests.append(int.from_bytes(digest.digest(), "little"))
    return digests


def content_hash(classes: Iterable[tuple[str, bool, int, int]]) -> str:
    """Hash (hex) of a version from (name in compared form, is_thing, live rows, sum of row digests) per class."""
    entries = sorted(
        canonical_json([name, is_thing, count, f"{total % MODULUS:064x}"]) for name, is_thing, count, total in classes
    )
    return hashlib.sha256(b"".join(entry + b"\n" for entry in entries)).hexdigest()
