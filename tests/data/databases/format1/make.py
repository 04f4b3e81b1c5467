"""Makes golden.retdb and expected.json beside this file; run once per format version: python make.py

The folder is read by tests for as long as format 1 is readable. Never make it again with a later program.
"""

import json
from pathlib import Path

import numpy as np

from retclip.core.identity import FeatureSpace
from retclip.core.segments import StoredSegment, segment_identity
from retclip.shards import Database

HERE = Path(__file__).parent
ROWS, DIM = 20, 6


def segment(number: int) -> StoredSegment:
    """Row `number` of the golden database: three classes, five images, two sources."""
    source, sha, counts = ("alpha", "beta")[number % 2], f"{number // 4:064x}", f"mask {number}".encode()
    return StoredSegment(
        segment_id=segment_identity(source, sha, counts, (30, 40)),
        label=("cat", "sky", "Straßenschild")[number % 3],
        label_raw=f"raw {number}",
        label_source="human",
        label_confidence=0.75,
        source=source,
        split="train",
        image_id=f"image-{number // 4}",
        image_uri=f"photos/{number // 4}.jpg",
        image_sha256=sha,
        image_width=40,
        image_height=30,
        box=(0.5, 1.0, 10.25, 12.0),
        area=50 + number,
        mask_counts=counts,
        box_source="annotation",
        mask_source="annotation",
        detector_score=float("nan"),
        mask_iou=0.875,
        prompt_chunk="",
        is_crowd=number == 7,
        is_thing=number % 3 != 1,
        license="CC-BY-4.0",
        attribution="nobody",
    )


def vectors() -> np.ndarray:
    """(20, 6) float32 of whole numbers, so that no random generator has to stay the same."""
    grid = np.arange(ROWS * DIM).reshape(ROWS, DIM)
    return ((grid * grid * 7 + grid * 3) % 23 - 11).astype(np.float32)


def main() -> None:
    """Two versions with rows; the newest has a renamed class, a moved row and dead rows."""
    space = FeatureSpace(
        "golden/encoder", "ab" * 32, DIM, ("last",), 8, 256, 512, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "", "mean"
    )
    segments = [segment(number) for number in range(ROWS)]
    database = Database.create(HERE / "golden.retdb", space, {"name": "golden"}, "standardise")
    with database.write("build", "make.py", shard_rows=12) as transaction:
        transaction.add(segments, vectors())
        transaction.commit("first rows")
    with database.write("edit", "make.py") as transaction:
        transaction.relabel("cat", "kitty")
        transaction.relabel_segments([segments[4].segment_id], "sky")
        transaction.delete(segment_ids=[segments[0].segment_id, segments[19].segment_id])
        database = transaction.commit("kitty")
    (database.path / "LOCK").unlink()  # it names the machine
    found = database.search(vectors()[:5], 4)
    expected = {
        "content_hash": database.content_hash(),
        "hash_of_version_2": Database.open(database.path, 2).content_hash(),
        "classes": [[c.id, c.name, list(c.aliases), c.is_thing, c.count] for c in database.classes],
        "distance": [[float(d) for d in row] for row in found.distance],
        "segment_id": found.segment_id.tolist(),
    }
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
