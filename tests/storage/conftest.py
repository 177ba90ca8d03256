"""Storage on a database of the test's own, and a database that nobody has migrated."""

import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from claimsvc.embedded import PostgresServer
from claimsvc.storage import PostgresStorage
from tests.storage.stage import open_storage


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    name = f"empty_{secrets.token_hex(8)}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres.url_of(name).replace("postgresql://", "postgresql+psycopg://")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[PostgresStorage]:
    async with open_storage(database_url) as (opened, _):
        yield opened
