"""PostgreSQL: the tables and all SQL statements."""

from claimsvc.postgres.connections import EngineLimits, open_engine
from claimsvc.postgres.database import Database
from claimsvc.postgres.diagnostics import DatabaseFacts, read_facts
from claimsvc.postgres.migrations import migrate
from claimsvc.postgres.repositories import Repositories

__all__ = [
    "Database",
    "DatabaseFacts",
    "EngineLimits",
    "Repositories",
    "migrate",
    "open_engine",
    "read_facts",
]
