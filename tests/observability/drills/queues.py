"""How failures of queues are staged: one that stands still, one whose tickets expire, and a dead letter."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import aiohttp

from claimsvc.background import in_background
from tests.observability.drills.stack import Stack
from tests.support.admin import ADMIN
from tests.support.injectors.postgres import connect, number, queues_held, rows_held
from tests.support.waiting import until

# So many wait that some still do when the drill is over.
_USERS = 600
_JOINS_PER_SECOND = 10
# A claim is tried twelve times, for minutes. This one has been tried so often before.
_TRIES_BEFORE = 11


@asynccontextmanager
async def queue_held(stack: Stack) -> AsyncIterator[None]:
    """Another session holds the queue's row, so nobody can start its tickets."""
    async with _client(stack) as client:
        coupon = await _coupon(client, rate_per_second=1, max_wait_seconds=3600)
        await asyncio.gather(*(_join(client, coupon, f"user-{each}") for each in range(_USERS)))
    holding = queues_held(stack.cluster.database_url, [coupon])
    await asyncio.to_thread(holding.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(holding.__exit__, None, None, None)


@asynccontextmanager
async def tickets_expire(stack: Stack) -> AsyncIterator[None]:
    """More users join than the queue serves within the wait that it allows."""
    async with _client(stack) as client:
        coupon = await _coupon(client, rate_per_second=1, max_wait_seconds=3)

        async def join() -> None:
            for each in count():
                await _join(client, coupon, f"user-{each}")
                await asyncio.sleep(1 / _JOINS_PER_SECOND)

        async with in_background(join()):
            yield


@asynccontextmanager
async def dead_letter(stack: Stack) -> AsyncIterator[None]:
    """A claim could not be made, because another session held its coupon's row, until the service gave up."""
    url = stack.cluster.database_url
    async with _client(stack) as client:
        coupon = await _coupon(client, rate_per_second=10, max_wait_seconds=3600)
        tickets = f"SELECT count(*) FROM tickets WHERE coupon_name = '{coupon}' AND "
        await _join(client, coupon, "bob")  # the first makes the queue, which needs the coupon's row
        await until(_is_one(url, tickets + "state = 'claimed'"), "his claim is made")
        holding = rows_held(url, [coupon])
        await asyncio.to_thread(holding.__enter__)
        try:
            await _join(client, coupon, "alice")
            await until(_is_one(url, tickets + "state = 'started'"), "its claim is tried")
            with connect(url) as session:
                tried = "UPDATE tickets SET tries = %s WHERE coupon_name = %s AND state = 'started'"
                session.execute(tried, [_TRIES_BEFORE, coupon])
            await until(_is_one(url, tickets + "state = 'dead'"), "the service gives it up")
        finally:
            await asyncio.to_thread(holding.__exit__, None, None, None)
    try:
        yield
    finally:
        with connect(url) as session:
            dead = "SELECT id FROM tickets WHERE coupon_name = %s AND state = 'dead'"
            [(ticket,)] = session.execute(dead, [coupon]).fetchall()
        command = (sys.executable, "-m", "claimsvc", "tickets", "requeue", str(ticket))
        printed = await stack.command(*command, "--reason", "its coupon's row is free again")
        await until(_is_one(url, tickets + "user_id = 'alice' AND state = 'claimed'"), f"the claim is made: {printed}")


def _is_one(url: str, query: str) -> "Callable[[], object]":
    return lambda: asyncio.to_thread(number, url, query)


def _client(stack: Stack) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stack.url)


async def _coupon(client: aiohttp.ClientSession, **queue: int) -> str:
    """Create a coupon with a queue."""
    name = f"in-line-{os.urandom(3).hex()}"
    body = {"name": name, "amount": 1_000_000, "queue": {"concurrency": 5, "max_length": 10_000} | queue}
    async with client.post("/api/coupons", json=body, headers=ADMIN) as answer:
        assert answer.status == 201, await answer.text()
    return name


async def _join(client: aiohttp.ClientSession, coupon: str, user: str) -> None:
    async with client.post("/api/coupons/claim", json={"coupon_name": coupon, "user_id": user}) as answer:
        assert answer.status == 202, await answer.text()
