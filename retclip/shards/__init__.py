"""The segment database: immutable shards under versioned manifests (docs/database-format.md)."""

from retclip.shards.catalog import (
    database_path,
    home,
    list_databases,
    locate_database,
    new_database_path,
    open_database,
)
from retclip.shards.classes import StoredClass
from retclip.shards.database import Database, VersionSummary
from retclip.shards.ledger import Ledger, unfinished_jobs
from retclip.shards.transforms import KINDS as TRANSFORMS
from retclip.shards.verification import Problem, VerifyReport, verify

__all__ = [
    "TRANSFORMS",
    "Database",
    "Ledger",
    "Problem",
    "StoredClass",
    "VerifyReport",
    "VersionSummary",
    "database_path",
    "home",
    "list_databases",
    "locate_database",
    "new_database_path",
    "open_database",
    "unfinished_jobs",
    "verify",
]
