"""Servers that are set up as they should be for production, and settings that lead to them."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from claimsvc.config import Settings
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from claimsvc.postgres import migrate
from tests.support.admin import ADMIN_DIGEST
from tests.support.databases import copy_of


@pytest.fixture(scope="session")
def sound() -> Iterator[EmbeddedServices]:
    """PostgreSQL with the schema, and three masters, set up as they should be. A test mends what it breaks."""
    with temporary_state_dir() as state, embedded_services(state, masters=3) as running:
        migrate(running.database_url)
        yield running


@pytest.fixture
def sound_database_url(sound: EmbeddedServices) -> Iterator[str]:
    """A copy of its database, for this test alone."""
    assert sound.postgres is not None
    with copy_of(sound.postgres, "claimsvc", strategy="wal_log") as url:
        yield url


def settings_of(database_url: str, redis_urls: Sequence[str], **changes: Any) -> Settings:
    return Settings(
        **{
            "database_url": database_url,
            "redis_urls": tuple(redis_urls),
            "admin_keys": (ADMIN_DIGEST,),
            "redis_timeout_seconds": 2.0,
            **changes,
        }
    )


def variables(settings: Settings) -> dict[str, str]:
    return {
        "CLAIMSVC_PORT": "0",  # 8080 may be in use, by another of these tests at the latest
        "CLAIMSVC_DATABASE_URL": settings.database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(settings.redis_urls),
        "CLAIMSVC_ADMIN_KEYS": ",".join(settings.admin_keys),
        "CLAIMSVC_REDIS_TIMEOUT_SECONDS": str(settings.redis_timeout_seconds),
    }
