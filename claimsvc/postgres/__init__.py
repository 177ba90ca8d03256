"""PostgreSQL: the tables and every statement."""

from claimsvc.postgres.connections import EngineLimits, open_engine
from claimsvc.postgres.database import Database
from claimsvc.postgres.diagnostics import DatabaseFacts, read_facts
from claimsvc.postgres.maintenance import PostgresUpkeep
from claimsvc.postgres.migrations import migrate
from claimsvc.postgres.repository import PostgresStorage

__all__ = [
    "Database",
    "DatabaseFacts",
    "EngineLimits",
    "PostgresStorage",
    "PostgresUpkeep",
    "migrate",
    "open_engine",
    "read_facts",
]
