"""Whole instances of the service, and clients of theirs."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Literal, Protocol

import aiohttp
import pytest

from claimsvc.bootstrap import application
from claimsvc.client import ClaimClient, Retries
from claimsvc.config import Settings
from tests.support.admin import ADMIN_DIGEST, ADMIN_KEY
from tests.support.documented import every_answer_documented
from tests.support.serving import served


class OpenService(Protocol):
    """Starts an instance, and returns its URL."""

    def __call__(self, *, combining: Literal["on", "off"] = "on") -> Awaitable[str]: ...


Connect = Callable[..., ClaimClient]


@pytest.fixture(autouse=True)
def documented() -> Iterator[None]:
    """Whatever the tests of this folder are answered is in the OpenAPI document."""
    with every_answer_documented():
        yield


@pytest.fixture
async def open_service(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[OpenService]:
    """Starts instances, all on the same databases; each is its URL."""
    async with AsyncExitStack() as stack:

        async def start(*, combining: Literal["on", "off"] = "on") -> str:
            settings = Settings(
                database_url=database_url,
                redis_urls=redis_urls,
                admin_keys=(ADMIN_DIGEST,),
                database_lock_timeout_seconds=30.0,
                database_statement_timeout_seconds=40.0,
                claim_timeout_seconds=60.0,
                combining=combining,
            )
            app = await stack.enter_async_context(application(settings))
            port = await stack.enter_async_context(served(app, header_timeout_seconds=10))
            return f"http://127.0.0.1:{port}"

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens clients that may offer coupons too."""
    async with AsyncExitStack() as stack:

        def open_client(url: str, retries: Retries | None = None) -> ClaimClient:
            client = ClaimClient(url, token=ADMIN_KEY, retries=retries)
            stack.push_async_callback(client.close)
            return client

        yield open_client


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """For what `claimsvc.client` does not ask."""
    async with aiohttp.ClientSession() as session:
        yield session


async def metric(session: aiohttp.ClientSession, url: str, series: str) -> float:
    """The value of a series; with `coupon="*"` the sum over all coupons.

    One coupon counts under `other` first, and under its name once it is among the busiest.
    """
    pattern = re.escape(series).replace(re.escape('"*"'), '"[^"]*"')
    async with session.get(f"{url}/metrics") as answer:
        return sum(map(float, re.findall(rf"^{pattern} (\S+)$", await answer.text(), re.MULTILINE)))
