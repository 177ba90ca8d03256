"""`claimsvc.client` against the whole service, where claims wait in queues."""

import asyncio
import re
import time
from collections import Counter
from pathlib import Path
from textwrap import indent
from urllib.parse import urlsplit

import pytest

from claimsvc import client as package
from claimsvc.client import (
    AlreadyClaimed,
    ClaimClient,
    Claimed,
    Confirmed,
    Coupon,
    CouponCreated,
    Expired,
    Left,
    Queued,
    QueueFull,
    SoldOut,
    Ticket,
    TicketStarted,
    UnknownCoupon,
    UnknownTicket,
)
from tests.end_to_end.conftest import Connect, OpenService
from tests.support.admin import ADMIN_KEY
from tests.support.proxy import proxy_to
from tests.support.waiting import until

PAGE = Path(__file__).parent.parent.parent / "docs" / "client.md"
MEGADEAL = {"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10, "max_length": 100, "order": "fifo"}


@pytest.fixture
async def client(open_service: OpenService, connect: Connect) -> ClaimClient:
    return connect(await open_service())


async def joined(client: ClaimClient, user: str, coupon_name: str = "mega") -> Ticket:
    ticket = await client.claim_async(user_id=user, coupon_name=coupon_name)
    assert isinstance(ticket, Ticket)
    return ticket


async def paused(client: ClaimClient, action: str = "pause") -> None:
    answer = await client._requests.post(f"/api/coupons/mega/queue/{action}", {"reason": "a test"}, None, None)
    assert answer.status == 200


async def test_a_claim_waits_and_is_made(client: ClaimClient) -> None:
    created = await client.create_coupon("mega", 1, queue=MEGADEAL)
    assert isinstance(created, CouponCreated)
    found = await client.coupon("mega")
    assert isinstance(found, Coupon)
    assert found.queue == MEGADEAL

    outcome = await client.claim(user_id="ann", coupon_name="mega")
    assert isinstance(outcome, Queued)
    end = await outcome.ticket.wait(20)
    assert isinstance(end, Claimed)
    assert (end.claim.user_id, end.claim.coupon_name, end.claim.state) == ("ann", "mega", "active")
    assert (outcome.ticket.state, outcome.ticket.position) == ("claimed", None)

    again = await client.ticket(outcome.ticket.id)
    assert isinstance(again, Ticket)
    assert again.end == end
    assert await outcome.ticket.leave() == TicketStarted(again.seen)
    assert await client.claim_async(user_id="ann", coupon_name="mega") == AlreadyClaimed(end.claim)
    assert await client.claim_async(user_id="ben", coupon_name="mega") == SoldOut()
    assert await client.claim_async(user_id="ben", coupon_name="none") == UnknownCoupon()
    assert await client.ticket("019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90") == UnknownTicket()


async def test_who_waits_for_a_unit_that_comes_back_confirms_it(client: ClaimClient) -> None:
    await client.create_coupon("mega", 1, waiting_list={"hold_seconds": 60})
    found = await client.coupon("mega")
    assert isinstance(found, Coupon)
    assert found.waiting_list == {"hold_seconds": 60}
    first = await client.claim(user_id="ann", coupon_name="mega")
    assert isinstance(first, Claimed)
    assert await client.claim(user_id="ben", coupon_name="mega") == SoldOut()

    ticket = await joined(client, "ben")
    assert (ticket.position, ticket.stopped) == (1, "sold-out")
    await client.cancel(first.claim.id)
    end = await ticket.wait(20)
    assert isinstance(end, Claimed)
    assert (end.claim.user_id, end.claim.state) == ("ben", "held")
    assert isinstance(await client.confirm(end.claim.id), Confirmed)

    await client.create_coupon("usual", 1, waiting_list=True)
    await client.create_coupon("none", 1, waiting_list=False)
    usual, none = await client.coupon("usual"), await client.coupon("none")
    assert isinstance(usual, Coupon)
    assert isinstance(none, Coupon)
    assert (usual.waiting_list, none.waiting_list) == ({"hold_seconds": 600}, None)


async def test_a_claim_of_any_coupon_may_wait_if_it_prefers_to(client: ClaimClient) -> None:
    await client.create_coupon("plain", 1)
    assert isinstance(await (await joined(client, "ann", "plain")).wait(20), Claimed)


async def test_many_wait_and_as_many_as_there_are_units_get_one(client: ClaimClient) -> None:
    await client.create_coupon("mega", 5, queue={**MEGADEAL, "rate_per_second": 100})
    outcomes = await asyncio.gather(
        *(client.claim_async(user_id=f"user-{number}", coupon_name="mega") for number in range(20))
    )
    tickets = [each for each in outcomes if isinstance(each, Ticket)]
    assert {type(each) for each in outcomes} <= {Ticket, QueueFull, SoldOut}
    ends = Counter(type(end) for end in await asyncio.gather(*(ticket.wait(30) for ticket in tickets)))
    assert ends[Claimed] == 5
    assert set(ends) <= {Claimed, SoldOut}


async def test_who_waits_keeps_the_place_and_moves_up_and_who_leaves_makes_room(client: ClaimClient) -> None:
    await client.create_coupon("mega", 5, queue={**MEGADEAL, "max_length": 2, "max_wait_seconds": 60})
    await paused(client)
    ann, ben = await joined(client, "ann"), await joined(client, "ben")
    assert [(each.position, each.stopped) for each in (ann, ben)] == [(1, "paused"), (2, "paused")]
    assert (await joined(client, "ben")).id == ben.id
    full = await client.claim_async(user_id="eve", coupon_name="mega")
    assert isinstance(full, QueueFull)
    assert full.retry_after_seconds is not None

    waiting = asyncio.create_task(ben.wait(30))
    assert await ann.leave() == Left()
    assert await ann.leave() == Left()
    assert await ann.wait() == Left()
    await until(lambda: ben.position == 1, "the one behind moves up")
    eve = await joined(client, "eve")
    # Who waits and is cancelled does not keep others waiting.
    eves = asyncio.create_task(eve.wait())
    await asyncio.sleep(0.3)
    eves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await eves
    left = await client.ticket(eve.id)
    assert isinstance(left, Ticket)
    assert left.end == Left()
    await paused(client, "resume")
    assert isinstance(await waiting, Claimed)


async def test_who_waits_too_long_is_told_so(client: ClaimClient) -> None:
    await client.create_coupon("mega", 5, queue={**MEGADEAL, "max_wait_seconds": 1})
    await paused(client)
    ann = await joined(client, "ann")
    with pytest.raises(TimeoutError):
        await ann.wait(0.2)
    assert await ann.wait(20) == Expired()


async def test_the_example_of_the_documentation_says_what_became_of_a_ticket(
    client: ClaimClient, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8").partition("## Claims that wait")[2]
    example = re.search(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert example
    names = dict(vars(package))
    exec("async def run(client):\n" + indent(example[1], "    "), names)
    await client.create_coupon("megadeal", 1, queue={**MEGADEAL, "max_length": 1})
    await names["run"](client)
    # Among the log's lines.
    said = re.findall(r"^1 in line, some [0-9.]+ s$|^alice has [0-9a-f-]{36}$", capsys.readouterr().out, re.MULTILINE)
    assert len(said) == 2


async def test_an_interrupted_stream_goes_on(open_service: OpenService, connect: Connect) -> None:
    url = await open_service()
    direct = connect(url)
    await direct.create_coupon("mega", 5, queue={**MEGADEAL, "max_wait_seconds": 60})
    await paused(direct)
    address = urlsplit(url)
    async with (
        proxy_to(str(address.hostname), address.port or 0) as proxy,
        ClaimClient(f"http://127.0.0.1:{proxy.port}", token=ADMIN_KEY) as client,
    ):
        ann = await joined(client, "ann")
        waiting = asyncio.create_task(ann.wait(30))
        for _ in range(2):
            # What was asked before is answered: only the stream is open.
            await asyncio.sleep(0.5)
            assert proxy.reset()
        await asyncio.sleep(0.5)
        assert not waiting.done()
        resumed = time.monotonic()
        await paused(direct, "resume")
        assert isinstance(await waiting, Claimed)
        assert time.monotonic() - resumed < 3
