"""The segment database: immutable shards under versioned manifests (docs/database-format.md)."""

from retclip.shards.classes import StoredClass
from retclip.shards.database import Database, VersionSummary
from retclip.shards.transforms import KINDS as TRANSFORMS

__all__ = ["TRANSFORMS", "Database", "StoredClass", "VersionSummary"]
