"""Databases inside vector engines: `lancedb:DIR` and `qdrant:URL_OR_DIR` (docs/scale.md)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from retclip.adapters.vector_engines.places import Place
from retclip.core.errors import InputError

if TYPE_CHECKING:
    from retclip.adapters.vector_engines.index import EngineIndex
    from retclip.shards import Database

_LIBRARIES = {"lancedb": "lancedb", "qdrant": "qdrant_client"}


def open_engine(reference: str, exact: bool = True) -> EngineIndex:
    """Open what was exported: `lancedb:DIR`, `qdrant:DIR` or `qdrant:http://HOST:6333`; `#NAME` after it picks one.

    Args:
        reference: see above.
        exact: scan all rows of the asked classes; else the engine's own index decides, if it has one.

    Raises:
        InputError: E331 when the engine's library is not installed.
        DatabaseError: E332 when there is nothing, or no way to it; E334 when it is no export.
    """
    place = parse_place(*reference.split(":", 1))
    from retclip.adapters.vector_engines.index import EngineIndex

    if place.engine == "lancedb":
        from retclip.adapters.vector_engines.lance import LanceEngine

        return EngineIndex(LanceEngine(place, exact))
    from retclip.adapters.vector_engines.qdrant import QdrantEngine

    return EngineIndex(QdrantEngine(place, exact))


def export_to_engine(database: Database, engine: str, target: str, transform: str | None) -> int:
    """Copy all live segments of a version into a new table or collection, by default under the database's name.

    Args:
        database: what to copy.
        engine: `lancedb` or `qdrant`.
        target: folder or address, with `#NAME` for another name.
        transform: key transform that is applied to the vectors for good; None takes the database's.

    Returns:
        How many segments there are.

    Raises:
        InputError: E331 when the engine's library is not installed.
        DatabaseError: E307 when the name is in use, E332 when the place cannot be written.
    """
    place, kind = parse_place(engine, target), transform or database.transform
    if engine == "lancedb":
        from retclip.adapters.vector_engines.lance import export_to_lance

        return export_to_lance(database, place, kind)
    from retclip.adapters.vector_engines.qdrant import export_to_qdrant

    return export_to_qdrant(database, place, kind)


def parse_place(engine: str, target: str) -> Place:
    """`DIR_OR_URL#NAME` of an engine. Raises InputError E331 when its library is not installed."""
    library = _LIBRARIES[engine]
    if importlib.util.find_spec(library) is None:
        name = library.replace("_", "-")
        what, why = f"The library '{name}' is not installed.", f"'{engine}:' is read and written with it."
        raise InputError("E331", what, why=why, fix=f'pip install "retclip[{engine}]"')
    where, _, name = target.partition("#")
    return Place(engine, where, name)
