"""Databases of a test's own, and statements for them that go past the service."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from claimsvc.embedded import PostgresServer

NOWHERE = "postgresql://nobody:nothing@127.0.0.1:1/none"
"""The URL of a database that is not there."""


@contextmanager
def copy_of(postgres: PostgresServer, template_database: str, *, strategy: str = "file_copy") -> Iterator[str]:
    """The URL of a copy of a database, which is dropped on leaving.

    Args:
        postgres: the server of both.
        template_database: the name of what is copied; nobody may be connected to it.
        strategy: of `CREATE DATABASE`. File by file means no write-ahead log for the pages, and without fsync the
            checkpoints cost little.
    """
    name = f"test_{secrets.token_hex(8)}"
    administrate(
        postgres.url_of("postgres"), f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY {strategy}"
    )
    yield postgres.url_of(name)
    administrate(postgres.url_of("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def administrate(database_url: str, statement: str) -> list[tuple[object, ...]]:
    """Execute a statement outside any transaction. The result is its rows, none if it has none."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []
