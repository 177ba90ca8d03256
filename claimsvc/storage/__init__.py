"""PostgreSQL: the tables and every statement."""

from claimsvc.storage.engine import EngineLimits, open_engine
from claimsvc.storage.migrations import migrate
from claimsvc.storage.repository import PostgresStorage

__all__ = ["EngineLimits", "PostgresStorage", "migrate", "open_engine"]
