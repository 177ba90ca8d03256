"""PostgreSQL: the tables and every statement."""

from claimsvc.storage.engine import EngineLimits, open_engine
from claimsvc.storage.facts import DatabaseFacts, read_facts
from claimsvc.storage.migrations import migrate
from claimsvc.storage.repository import PostgresStorage
from claimsvc.storage.upkeep import PostgresUpkeep

__all__ = ["DatabaseFacts", "EngineLimits", "PostgresStorage", "PostgresUpkeep", "migrate", "open_engine", "read_facts"]
