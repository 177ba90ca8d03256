"""Claims that wait, under every strategy: all end, exactly the stock is given, and in the order of joining."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from claimsvc.claiming.strategies import StrategyByCoupon
from claimsvc.domain import (
    AttributeRule,
    AuditEntry,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    EligibilityRules,
    NewCode,
    NotEligible,
    Queue,
    Queued,
    Replayed,
    SoldOut,
    Source,
    StrategyName,
    Ticket,
    TicketState,
)
from claimsvc.postgres import Repositories
from claimsvc.tickets.dispatching import TicketDispatcher
from claimsvc.tickets.joining import TicketDesk
from tests.support.databases import administrate
from tests.support.storage import attempts, broken_sums
from tests.support.strategy_instances import open_instance
from tests.support.tickets import Seen, broken_queues, create_queued, keyed
from tests.support.waiting import until

CONCURRENCY = 6
QUEUE = Queue(rate_per_second=1000, concurrency=CONCURRENCY, max_wait_seconds=120, max_length=1000)

WAYS = [(name, True) for name in StrategyName] + [(StrategyName.REDLOCK, False)]
IDS = [*StrategyName, "redlock-without-combining"]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance with its tickets."""

    claims: StrategyByCoupon
    storage: Repositories


Open = Callable[[], Awaitable[Instance]]


@pytest.fixture(params=WAYS, ids=IDS)
async def open_one(
    request: pytest.FixtureRequest, database_url: str, redis_urls: tuple[str, ...]
) -> AsyncIterator[Open]:
    """Opens instances that start tickets, all on the same databases."""
    name, combines = request.param
    async with AsyncExitStack() as stack:

        async def open_it() -> Instance:
            instance = await stack.enter_async_context(open_instance(name, database_url, redis_urls, combines=combines))
            storage = instance.storage
            desk = TicketDesk(storage.tickets, storage.admission, waiting_limit=1000)
            claims = StrategyByCoupon(
                dict.fromkeys(StrategyName, instance.strategy),
                storage.coupons,
                storage.admission.look,
                timeout_seconds=10.0,
                joins=desk,
            )
            dispatcher = TicketDispatcher(storage.tickets, claims, Seen(), instance="test")
            desk.on_joined = dispatcher.joined
            await stack.enter_async_context(dispatcher.running())
            return Instance(claims, storage)

        yield open_it


async def claim_all(
    instances: Sequence[Instance], users: Sequence[str], options: ClaimOptions | None = None, on: str = "spring"
) -> list[ClaimOutcome]:
    return await asyncio.gather(
        *(instances[n % len(instances)].claims.claim(on, user, options) for n, user in enumerate(users))
    )


def tickets_of(outcomes: Sequence[ClaimOutcome]) -> list[Ticket]:
    tickets = [each.ticket for each in outcomes if isinstance(each, Queued)]
    assert len(tickets) == len(outcomes), Counter(type(each).__name__ for each in outcomes)
    return tickets


async def ends_of(storage: Repositories, tickets: Sequence[Ticket]) -> list[Ticket]:
    """The tickets once all have ended, in the order of joining."""
    ids = [each.id for each in tickets]

    async def all_ended() -> bool:
        return all(each.state.is_end for each in await storage.tickets.read(ids))

    await until(all_ended, "all have ended", within_seconds=60)
    return sorted(await storage.tickets.read(ids), key=lambda each: each.place)


def out_of_order(database_url: str) -> int:
    """By how many places a claim was made earlier than another that joined before it."""
    [(most,)] = administrate(
        database_url,
        """
        WITH made AS (
            SELECT row_number() OVER (ORDER BY ticket.place) AS place,
                row_number() OVER (ORDER BY claim.claimed_at, ticket.place) AS nth
            FROM tickets AS ticket JOIN user_claims AS claim
                ON claim.coupon_name = ticket.coupon_name AND claim.id = ticket.claim_id
        ) SELECT coalesce(max(abs(place - nth)), 0) FROM made
        """,
    )
    assert isinstance(most, int)
    return most


@pytest.mark.parametrize("instances", [1, 3])
async def test_all_end_and_are_claimed_in_the_order_of_joining(
    open_one: Open, database_url: str, instances: int
) -> None:
    opened = [await open_one() for _ in range(instances)]
    await create_queued(opened[0].storage, 60, QUEUE)
    outcomes = await claim_all(opened, [f"user-{number}" for number in range(60)])
    ended = await ends_of(opened[0].storage, tickets_of(outcomes))
    assert Counter(each.state for each in ended) == {TicketState.CLAIMED: 60}
    assert out_of_order(database_url) < CONCURRENCY
    assert broken_sums(database_url) == broken_queues(database_url) == []


async def test_of_more_than_there_are_units_exactly_the_stock_is_claimed(open_one: Open, database_url: str) -> None:
    """Some units go to others meanwhile, so not all who wait get one."""
    opened = [await open_one() for _ in range(2)]
    storage = opened[0].storage
    await create_queued(storage, 40, QUEUE)
    outcomes = await claim_all(opened, [f"user-{number}" for number in range(55)])
    queued = [each for each in outcomes if isinstance(each, Queued)]
    taken = await storage.admission.admit(attempts(*(f"other-{n}" for n in range(10))))
    ended = await ends_of(storage, tickets_of(queued))
    claimed = sum(each.state is TicketState.CLAIMED for each in ended)
    assert claimed + sum(isinstance(each, Claimed) for each in taken) == 40
    assert {each.refusal for each in ended if each.state is TicketState.REFUSED} <= {SoldOut()}
    assert administrate(database_url, "SELECT remaining_amount FROM coupons") == [(0,)]
    assert broken_sums(database_url) == broken_queues(database_url) == []


async def codes(count: int) -> AsyncIterator[Sequence[NewCode]]:
    yield [NewCode(row, f"code-{row}") for row in range(1, count + 1)]


async def test_codes_rules_holds_and_limits_hold_for_those_who_wait(open_one: Open, database_url: str) -> None:
    opened = [await open_one() for _ in range(2)]
    storage = opened[0].storage
    rules = EligibilityRules((AttributeRule("age", Source.REQUEST, at_least=18),))
    await create_queued(storage, 20, QUEUE, rules=rules, per_user_limit=2)
    added = AuditEntry("test", "codes.add", "coupon", "spring")
    await storage.codes.add("spring", codes(20), added, atomic=True)
    old, young = ({"age": age} for age in (20, 17))
    users = [f"user-{number}" for number in range(5)]
    first = await claim_all(opened, users, ClaimOptions(attributes=old))
    ended = await ends_of(storage, tickets_of(first))
    assert len({each.claim.code for each in ended if each.claim is not None}) == 5
    # The second unit is held, and a third claim confirms it; a fourth is refused at once.
    held = await ends_of(storage, tickets_of(await claim_all(opened, users, ClaimOptions(60, attributes=old))))
    assert [each.claim and (each.claim.state, each.claim.code) for each in held] == [("held", None)] * 5
    third = await ends_of(storage, tickets_of(await claim_all(opened, users, ClaimOptions(attributes=old))))
    assert {each.claim.id for each in third if each.claim} == {each.claim.id for each in held if each.claim}
    fourth = await claim_all(opened, users, ClaimOptions(attributes=old))
    assert {type(each).__name__ for each in fourth} == {"AlreadyClaimed"}
    refused = await ends_of(storage, tickets_of(await claim_all(opened, ["young"], ClaimOptions(attributes=young))))
    assert isinstance(refused[0].refusal, NotEligible)
    assert administrate(database_url, "SELECT count(*) FROM codes WHERE claim_id IS NOT NULL") == [(10,)]
    assert broken_sums(database_url) == broken_queues(database_url) == []


async def test_a_key_has_one_effect_while_it_waits_and_after(open_one: Open, database_url: str) -> None:
    opened = [await open_one() for _ in range(2)]
    await create_queued(opened[0].storage, 20, QUEUE)
    found = await claim_all(opened, ["ada"] * 20, keyed("k"))
    ids = {each.ticket.id for each in found if isinstance(each, Queued)}
    ids |= {each.answer.ticket.id for each in found if isinstance(each, Replayed)}
    assert len(ids) == 1
    # Which instance's request was the first is left open.
    queued = [each for each in found if isinstance(each, Queued)]
    [ended] = await ends_of(opened[0].storage, tickets_of(queued[:1]))
    assert ended.state is TicketState.CLAIMED
    again = await opened[1].claims.claim("spring", "ada", keyed("k"))
    assert isinstance(again, Replayed)
    assert again.answer.ticket.id in ids
    assert administrate(database_url, "SELECT count(*) FROM user_claims") == [(1,)]


@pytest.mark.parametrize("by_type", [False, True])
async def test_whoever_prefers_a_ticket_gets_one_on_a_coupon_without_a_queue(
    open_one: Open, database_url: str, by_type: bool
) -> None:
    instance = await open_one()
    await create_queued(instance.storage, 30, None, type="tea")
    prefers = replace(ClaimOptions(), prefers_ticket=True)

    async def wait(user: str, options: ClaimOptions | None) -> Any:
        if by_type:
            return await instance.claims.claim_first("tea", user, options)
        return await instance.claims.claim("spring", user, options)

    outcomes = await asyncio.gather(*(wait(f"user-{number}", prefers) for number in range(20)))
    assert isinstance(await wait("now", None), Claimed)
    ended = await ends_of(instance.storage, tickets_of(outcomes))
    assert Counter(each.state for each in ended) == {TicketState.CLAIMED: 20}
    assert administrate(database_url, "SELECT remaining_amount FROM coupons") == [(9,)]
    assert broken_sums(database_url) == broken_queues(database_url) == []
