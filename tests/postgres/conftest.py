"""Storage on a database of the test's own, and a database that nobody has migrated."""

import secrets
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from claimsvc.embedded import PostgresServer
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming.fast_path import FastPath
from tests.support.storage import open_storage


@pytest.fixture
def empty_database_url(postgres: PostgresServer) -> Iterator[str]:
    name = f"empty_{secrets.token_hex(8)}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres.url_of(name).replace("postgresql://", "postgresql+psycopg://")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Repositories]:
    async with open_storage(database_url) as (opened, _):
        yield opened


@pytest.fixture(params=[False, True], ids=["decided", "sold-first"])
def sold_first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds too where every batch is at first taken for one that gets all that it asks for."""
    if request.param:
        monkeypatch.setattr(FastPath, "_sells", lambda _, coupon_names: len(coupon_names) == 1)
