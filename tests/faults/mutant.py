"""The service with one thing wrong with it: `python -m tests.faults.mutant <mutation> serve`.

The checks of the fault suite must go red on each. What is wrong is put in here, from outside: the product has no
switch for it.
"""

import sys
from collections.abc import Callable, Sequence

from claimsvc.__main__ import main
from claimsvc.domain import Attempt, SoldOut
from claimsvc.ports import Decision
from claimsvc.postgres.claiming import fast_path
from claimsvc.postgres.claiming.dispatcher import Dispatcher

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


MUTATIONS: dict[str, Callable[[], None]] = {
    "sell-without-looking": sell_without_looking,
    "forget-who-holds-one": forget_who_holds_one,
    "refuse-too-early": refuse_too_early,
}

if __name__ == "__main__":
    MUTATIONS[sys.argv.pop(1)]()
    main()
