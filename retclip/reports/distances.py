"""Reads back how near the stored segments were that results rest on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retclip.core.errors import DatabaseError, require
from retclip.reports.provenance import SCHEMA

MAX_DOCUMENT_BYTES = 1 << 28


def nearest_distances(folder: Path, feature_space: str, transform: str) -> npt.NDArray[np.float64]:
    """(M,) distance of every segment of a folder of results to its nearest neighbour, where it had one.

    Args:
        folder: searched for segments.json.
        feature_space: fingerprint that the database of the results must have.
        transform: key transform that distances must be measured in.

    Raises:
        DatabaseError: E319 for no segments.json, for one that cannot be read, and for those of another database.
    """
    distances: list[float] = []
    for path in sorted(folder.rglob("segments.json")):
        try:
            document = _document(path)
            why = _foreign(document["run"], feature_space, transform)
            nearest = [segment["neighbors"][:1] for segment in document["segments"]]
            distances += [float(neighbor["distance"]) for found in nearest for neighbor in found]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unusable(path, f"It is no {SCHEMA}: {type(error).__name__}: {error}.") from error
        if why:
            raise _unusable(path, why)
    if not distances:
        raise _unusable(folder, "It holds no segments.json with neighbours.")
    return np.array(distances)


def _document(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    require(size <= MAX_DOCUMENT_BYTES, "size", f"<= {MAX_DOCUMENT_BYTES} bytes", size)
    document: dict[str, Any] = json.loads(path.read_bytes())
    require(document["schema"] == SCHEMA, "schema", SCHEMA, document["schema"])
    return document


def _foreign(run: Mapping[str, Any], feature_space: str, transform: str) -> str:
    """Why the distances of a run are not comparable with those of a database; empty when they are."""
    if any(database["feature_space"] != feature_space for database in run["db"]):
        return "It was made with a database of another encoder."
    if run["retrieval"]["transform"] not in ("database", transform):
        return f"Its distances are measured under '{run['retrieval']['transform']}', the database has '{transform}'."
    return ""


def _unusable(path: Path, why: str) -> DatabaseError:
    return DatabaseError(
        "E319",
        f"The results in {path} cannot be compared with the database.",
        why=why,
        fix="Give a folder that `retclip segment --formats segments --db NAME` wrote.",
    )
