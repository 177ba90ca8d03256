"""The service with one thing wrong with it: `python -m tests.faults.mutant <mutation> serve`.

The checks of the fault suite must go red on each. What is wrong is put in here, from outside: the product has no
switch for it.
"""

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count

from claimsvc.__main__ import main
from claimsvc.domain import USUAL_QUEUE, Attempt, JoinRequest, Queued, SoldOut, Ticket, TicketState
from claimsvc.domain.pacing import Pace
from claimsvc.ports import Decision, Joined
from claimsvc.postgres.claiming import fast_path
from claimsvc.postgres.claiming.dispatcher import Dispatcher
from claimsvc.postgres.tickets import PostgresTickets, joining, joining_all

_EVERY = 20


def _without(statement: str, *conditions: str) -> str:
    for condition in conditions:
        if condition not in statement:
            sys.exit(f"mutant: the statement has no {condition!r} any more; say what it is now")
        statement = statement.replace(condition, "true")
    return statement


def sell_without_looking() -> None:
    """The stock is neither looked at when a claim is made nor when it is decremented."""
    fast_path._ADMIT = _without(
        fast_path._ADMIT, "position <= remaining_amount", "coupons.remaining_amount >= sold.units"
    )
    fast_path._SELL = _without(fast_path._SELL, "remaining_amount >= %(units)s")


def forget_who_holds_one() -> None:
    """The look-up of those who hold a claim already finds nobody."""
    held = "state = 'active'\n        LIMIT 1"
    if held not in fast_path._ADMIT:
        sys.exit("mutant: the look-up of the holders is another one now; say what it is")
    fast_path._ADMIT = fast_path._ADMIT.replace(held, "state = 'none'\n        LIMIT 1")


def refuse_too_early() -> None:
    """Every 20th claim is told sold-out without anybody having looked."""
    admit = Dispatcher.admit
    seen = 0

    async def admit_most(self: Dispatcher, attempts: Sequence[Attempt]) -> list[Decision]:
        nonlocal seen
        refused = set()
        for attempt in attempts:
            seen += 1
            if seen % _EVERY == 0:
                refused.add(attempt.claim_id)
        asked = [attempt for attempt in attempts if attempt.claim_id not in refused]
        decided = iter(await admit(self, asked) if asked else ())
        return [SoldOut() if attempt.claim_id in refused else next(decided) for attempt in attempts]

    Dispatcher.admit = admit_most  # type: ignore[method-assign]


def forget_the_pace() -> None:
    """As many tickets are started as may be under way at once."""

    def allowed(self: Pace, rate: int, concurrency: int, under_way: int) -> int:
        return max(0, concurrency - under_way)

    Pace.allowed = allowed  # type: ignore[method-assign]


def forget_the_concurrency() -> None:
    """As many tickets are under way at once as may be started in a second."""

    def allowed(self: Pace, rate: int, concurrency: int, under_way: int) -> int:
        return max(0, rate - len(self.starts))

    Pace.allowed = allowed  # type: ignore[method-assign]


def forget_the_length() -> None:
    """Any number waits."""
    most = f"coalesce((campaign.queue ->> 'max_length')::int, {USUAL_QUEUE.max_length})"
    joining_all._JOIN_ALL = _without(joining_all._JOIN_ALL, f"queue.waiting + %(size)s <= {most}")
    joining._JOIN = _without(joining._JOIN, "queue.waiting + number < queue.max_length")


def forget_some_joins() -> None:
    """Every 20th who joins is told of a ticket that is not stored."""
    join = PostgresTickets.join
    seen = count(1)

    async def join_most(
        self: PostgresTickets, coupon_name: str, requests: Sequence[JoinRequest]
    ) -> list[Joined | None]:
        stored = [each for each in requests if next(seen) % _EVERY]
        results = iter(await join(self, coupon_name, stored) if stored else ())
        return [next(results) if each in stored else Queued(_imagined(coupon_name, each)) for each in requests]

    PostgresTickets.join = join_most  # type: ignore[method-assign]


def _imagined(coupon_name: str, request: JoinRequest) -> Ticket:
    return Ticket(request.ticket_id, coupon_name, request.user_id, TicketState.WAITING, datetime.now(UTC), ahead=0)


def tell_any_place() -> None:
    """Every answer about a ticket that waits tells one place more than the last one did."""
    told = count(1)
    Ticket.position = property(  # type: ignore[assignment, method-assign]
        lambda self: 0 if self.state is TicketState.STARTED else None if self.ahead is None else next(told)
    )


MUTATIONS: dict[str, Callable[[], None]] = {
    "sell-without-looking": sell_without_looking,
    "forget-who-holds-one": forget_who_holds_one,
    "refuse-too-early": refuse_too_early,
    "forget-the-pace": forget_the_pace,
    "forget-the-concurrency": forget_the_concurrency,
    "forget-the-length": forget_the_length,
    "forget-some-joins": forget_some_joins,
    "tell-any-place": tell_any_place,
}

if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    main()
