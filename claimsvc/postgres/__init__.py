"""PostgreSQL: the tables and all SQL statements."""

from claimsvc.postgres.connections import ConnectionLimits, ConnectionSource, SingleConnection
from claimsvc.postgres.database import Database
from claimsvc.postgres.diagnostics import DatabaseFacts, read_facts
from claimsvc.postgres.migrations import migrate
from claimsvc.postgres.repositories import Repositories
from claimsvc.postgres.troubles import trouble_of

__all__ = [
    "ConnectionLimits",
    "ConnectionSource",
    "Database",
    "DatabaseFacts",
    "Repositories",
    "SingleConnection",
    "migrate",
    "read_facts",
    "trouble_of",
]
