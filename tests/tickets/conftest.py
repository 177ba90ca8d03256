"""Storage on a database of the test's own."""

from collections.abc import AsyncIterator

import pytest

from claimsvc.postgres import Repositories
from tests.support.storage import open_storage


@pytest.fixture
async def storage(database_url: str) -> AsyncIterator[Repositories]:
    async with open_storage(database_url) as (opened, _):
        yield opened
