"""Storage on a database of the test's own, and a database that nobody has migrated."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from claimsvc.domain import Attempt
from claimsvc.embedded import PostgresServer
from claimsvc.errors import UnavailableError
from claimsvc.ports import HandedBatch
from claimsvc.postgres import Repositories
from claimsvc.postgres.claiming.fast_path import FastPath
from claimsvc.postgres.claiming.fence import names_of
from claimsvc.postgres.claiming.full_path import FullPath
from tests.support.storage import learn_terms, open_storage


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
        monkeypatch.setattr(FullPath, "admit_handed", _sell_first)


_decide = FullPath.admit_handed


async def _sell_first(path: FullPath, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> Any:
    """Let the full path know the terms, as if the batch before had got all that it asked for."""
    names = names_of(attempts, batches)
    if len(names) == 1:
        with contextlib.suppress(UnavailableError):
            await learn_terms(path, names[0])
    return await _decide(path, attempts, batches)
