"""The fast path: PostgreSQL decides in one round trip who gets a unit of a coupon without terms.

The statements run on the driver, because SQLAlchemy cannot send two of them in one round trip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import psycopg

from claimsvc.domain import (
    AlreadyClaimed,
    Attempt,
    Claim,
    Claimed,
    ClaimOutcome,
    ClaimState,
    SoldOut,
    TooManyClaims,
    UnknownCoupon,
)
from claimsvc.errors import UnavailableError
from claimsvc.ports import AllClaimed, HandedBatch
from claimsvc.postgres.claiming.claims_per_user import ended_claims, most_claims
from claimsvc.postgres.claiming.fence import LOCK_COUPONS, begin_fenced, handed_outcomes, names_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.transactions import RestartTransactionError

_ADMIT = f"""
WITH attempt AS (
    SELECT claim_id, coupon_name, user_id, place
    FROM unnest(
        string_to_array(%(claim_ids)s, E'\\n')::uuid[],
        string_to_array(%(coupon_names)s, E'\\n'),
        string_to_array(%(user_ids)s, E'\\n')
    ) WITH ORDINALITY AS given (claim_id, coupon_name, user_id, place)
), stock AS (
    -- `most_claims` is NULL if no claim of the coupon has ended: then nobody can have made too many.
    SELECT requested.coupon_name, coupon.remaining_amount, coupon.is_plain, coupon.most_claims
    FROM (SELECT DISTINCT coupon_name FROM attempt) AS requested
    CROSS JOIN LATERAL (
        SELECT remaining_amount,
            -- Where the fence found the coupon plain, it is: its end may come between the two statements.
            name = ANY (string_to_array(%(fenced_names)s, E'\\n'))
                OR plain_until IS NULL OR plain_until > clock_timestamp() AS is_plain,
            CASE WHEN ended_count IS DISTINCT FROM 0 THEN {most_claims("requested.coupon_name")} END AS most_claims
        FROM coupons WHERE name = requested.coupon_name LIMIT 1
    ) AS coupon
), held AS (
    -- One look-up in the unique index for each user. Without LIMIT, the planner scans all claims of the coupon while
    -- the table is small, and keeps that plan when it has grown.
    -- Who holds none, but has made as many as one may, has a row without a claim.
    SELECT claimant.coupon_name, claimant.user_id, claim.id, claim.claimed_at
    FROM (SELECT DISTINCT coupon_name, user_id FROM attempt) AS claimant JOIN stock USING (coupon_name)
    CROSS JOIN LATERAL (
        (
        SELECT id, claimed_at
        FROM user_claims
        WHERE coupon_name = claimant.coupon_name AND user_id = claimant.user_id AND state = 'active'
        LIMIT 1
        )
        UNION ALL
        SELECT NULL, NULL WHERE stock.most_claims IS NOT NULL
            AND {ended_claims("claimant.coupon_name", "claimant.user_id", most="stock.most_claims")}
                >= stock.most_claims
        LIMIT 1
    ) AS claim
), candidate AS (
    -- Each user's first attempt. Users who hold a claim are dropped before the stock is allocated.
    SELECT DISTINCT ON (coupon_name, user_id) claim_id, coupon_name, user_id, place
    FROM attempt
    WHERE (coupon_name, user_id) NOT IN (SELECT coupon_name, user_id FROM held)
    ORDER BY coupon_name, user_id, place
), queue AS (
    SELECT claim_id, coupon_name, user_id, row_number() OVER (PARTITION BY coupon_name ORDER BY place) AS position
    FROM candidate
), admitted AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at)
    SELECT claim_id, coupon_name, user_id, 'active', statement_timestamp()
    FROM queue JOIN stock USING (coupon_name)
    WHERE position <= remaining_amount AND is_plain
    RETURNING id, coupon_name, user_id, claimed_at
), decremented AS (
    UPDATE coupons
    SET remaining_amount = coupons.remaining_amount - sold.units
    FROM (SELECT coupon_name, count(*) AS units FROM admitted GROUP BY coupon_name) AS sold
    WHERE name = sold.coupon_name AND coupons.remaining_amount >= sold.units
    RETURNING sold.units
), verdict AS (
    -- If the two numbers differ, the division by zero rolls everything back.
    SELECT 1 / ((SELECT count(*) FROM admitted) = (SELECT coalesce(sum(units), 0) FROM decremented))::int AS sound
), holder AS (
    SELECT coupon_name, user_id, id, claimed_at FROM held
    UNION ALL
    SELECT coupon_name, user_id, id, claimed_at FROM admitted
)
SELECT stock.coupon_name IS NOT NULL AS known, stock.is_plain, holder.claimed_at,
    nullif(holder.id, attempt.claim_id)::text AS other_id,
    holder.user_id IS NOT NULL AND holder.id IS NULL AND stock.remaining_amount > 0 AS is_spent
FROM attempt
CROSS JOIN verdict
LEFT JOIN stock USING (coupon_name)
LEFT JOIN holder USING (coupon_name, user_id)
WHERE verdict.sound = 1
ORDER BY attempt.place
"""  # noqa: S608 - of constants


# The same at half the cost, for claims of one coupon that can all get a unit: one statement locks the row, decrements
# and inserts, and returns one row. It does nothing if there are too few units or the coupon is not plain, and fails on
# the unique index if one of the users holds a claim. The row is locked before the first insert, because the insert
# reads the result of the update.
#
# Who has made too many claims gets none. The statement may have waited for the row, and what it counts is older than
# that. If a claim of the coupon has ended since, the row's count is another than the one in the statement's snapshot.
def _selling(condition: str = "", fenced: str = "") -> str:
    return f"""
WITH sold AS (
    UPDATE coupons
    SET remaining_amount = remaining_amount - %(units)s
    WHERE name = %(coupon_name)s AND remaining_amount >= %(units)s
        AND (plain_until IS NULL OR plain_until > clock_timestamp()){condition}
        AND (ended_count = 0 OR (
            ended_count IS NOT DISTINCT FROM (SELECT ended_count FROM coupons WHERE name = %(coupon_name)s)
            AND NOT EXISTS (
                SELECT FROM unnest(string_to_array(%(user_ids)s, E'\\n')) AS claimant (user_id)
                CROSS JOIN (SELECT {most_claims("%(coupon_name)s")} AS claims) AS most
                WHERE {ended_claims("%(coupon_name)s", "claimant.user_id", most="most.claims")} >= most.claims
            )
        ))
    -- clock_timestamp() and not statement_timestamp(): the statement may have waited for the row.
    RETURNING name, clock_timestamp() AS sold_at
){fenced}, admitted AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at)
    SELECT claim_id, sold.name, user_id, 'active', sold.sold_at
    FROM sold CROSS JOIN unnest(
        string_to_array(%(claim_ids)s, E'\\n')::uuid[], string_to_array(%(user_ids)s, E'\\n')
    ) AS attempt (claim_id, user_id)
    RETURNING claimed_at
)
-- If the two numbers differ, the division by zero rolls everything back.
SELECT max(claimed_at), 1 / (count(*) = (SELECT count(*) FROM sold) * %(units)s)::int FROM admitted
"""  # noqa: S608 - of constants


_SELL = _selling()
# The same with a fence: it fails on the fence's unique key if one of the handed batches was decided before.
_SELL_HANDED = _selling(
    " AND fenced_after < %(first_batch)s::uuid",
    """, fenced AS (
    INSERT INTO handed_batches (coupon_name, id)
    SELECT sold.name, batch.id FROM sold CROSS JOIN unnest(%(batch_ids)s::uuid[]) AS batch (id)
)""",
)

# Reads without any lock who holds a claim, and whether units are left, at one moment.
_LOOK = """
SELECT coupon.name IS NOT NULL AS known, coupon.is_plain, coupon.remaining_amount > 0 AS is_left,
    claim.claimed_at, claim.id::text
FROM unnest(string_to_array(%(coupon_names)s, E'\\n'), string_to_array(%(user_ids)s, E'\\n'))
    WITH ORDINALITY AS attempt (coupon_name, user_id, place)
LEFT JOIN LATERAL (
    SELECT name, remaining_amount, plain_until IS NULL OR plain_until > clock_timestamp() AS is_plain
    FROM coupons WHERE name = attempt.coupon_name LIMIT 1
) AS coupon ON true
LEFT JOIN LATERAL (
    SELECT id, claimed_at
    FROM user_claims
    WHERE coupon_name = attempt.coupon_name AND user_id = attempt.user_id AND state = 'active'
    LIMIT 1
) AS claim ON true
ORDER BY attempt.place
"""

_SELLING_REMEMBERED = 10_000
_SOLD_OUT = SoldOut()
_TOO_MANY_CLAIMS = TooManyClaims()


@dataclass(frozen=True, slots=True)
class NeedsFullPath:
    """Nothing was decided: the claims of this coupon depend on more than its stock."""


_ENDED = """
SELECT FROM unnest(%(ids)s::uuid[], %(user_ids)s::text[]) AS attempt (id, user_id)
JOIN user_claims AS committed ON committed.id = attempt.id
WHERE committed.state <> 'active' OR committed.held_until <= now() OR committed.user_id <> attempt.user_id
LIMIT 1
"""

FastPathOutcome = ClaimOutcome | NeedsFullPath

HandedOutcomes = AllClaimed | Sequence[FastPathOutcome] | None
"""The outcomes of a handed batch; None if it may have been decided before."""

_NEEDS_FULL_PATH = NeedsFullPath()


class _NotForAllError(RestartTransactionError):
    """Not all of the claims can get a unit."""


class FastPath:
    """Decides attempts on coupons without terms.

    Args:
        database: where statements run.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        # Coupons of which every attempt of the last batch got a unit. The next batch most likely does, too.
        self._selling: set[str] = set()

    async def admit(self, attempts: Sequence[Attempt]) -> list[FastPathOutcome]:
        """Decide the attempts in one transaction. The outcome is `NeedsFullPath` if the coupon is not plain.

        Deciding the same attempts again is safe: a committed claim is found by its user, and recognized by its id.

        Raises the same errors as `run_transaction`.
        """
        outcomes, _ = await self.admit_handed(attempts, ())
        return outcomes

    async def admit_handed(
        self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> tuple[list[FastPathOutcome], list[HandedOutcomes]]:
        """Decide the attempts, and after them the batches, in one transaction; see `ports.FencedAdmission`.

        Raises the same errors as `run_transaction`.
        """
        coupon_names = names_of(attempts, batches)
        sells = self._sells(coupon_names)

        async def work(driver: Driver, in_doubt: bool) -> tuple[list[FastPathOutcome], list[HandedOutcomes]]:
            nonlocal sells
            if in_doubt:
                # Handed batches are recognized by the fence.
                await require_none_ended(driver, attempts)
            if sells and not in_doubt:
                try:
                    sold_at = await _sell(driver, coupon_names[0], attempts, batches)
                except _NotForAllError:
                    sells = False
                    self._selling.difference_update(coupon_names)
                    raise
                sold: list[FastPathOutcome] = [
                    Claimed(_claim(attempt, attempt.claim_id, sold_at)) for attempt in attempts
                ]
                return sold, [AllClaimed(sold_at)] * len(batches)
            outcomes, handed = await _admit(driver, coupon_names, attempts, batches)
            self._remember_selling(coupon_names, outcomes, handed)
            return outcomes, handed

        return await self._database.run_transaction(work)

    def _sells(self, coupon_names: Sequence[str]) -> bool:
        return len(coupon_names) == 1 and coupon_names[0] in self._selling

    def _remember_selling(
        self, coupon_names: Sequence[str], outcomes: Sequence[FastPathOutcome], handed: Sequence[HandedOutcomes]
    ) -> None:
        if len(self._selling) >= _SELLING_REMEMBERED:
            self._selling.clear()
        if (
            len(coupon_names) == 1
            and all(type(outcome) is Claimed for outcome in outcomes)
            and all(isinstance(each, AllClaimed) for each in handed)
        ):
            self._selling.update(coupon_names)

    async def look(self, attempts: Sequence[Attempt]) -> list[FastPathOutcome | None]:
        """Return what the attempts would result in now; see `ports.Admission.look`."""

        async def query(driver: Driver) -> list[tuple[Any, ...]]:
            return await (await driver.execute(_LOOK, _names_and_users(attempts))).fetchall()

        rows = await self._database.read(query)
        outcomes: list[FastPathOutcome | None] = []
        for attempt, (known, is_plain, is_left, claimed_at, claim_id) in zip(attempts, rows, strict=True):
            if not known:
                outcomes.append(UnknownCoupon())
            elif not is_plain:
                outcomes.append(_NEEDS_FULL_PATH)
            elif claim_id is not None:
                outcomes.append(AlreadyClaimed(_claim(attempt, claim_id, claimed_at)))
            else:
                outcomes.append(None if is_left else _SOLD_OUT)
        return outcomes


async def require_none_ended(driver: Driver, attempts: Sequence[Attempt]) -> None:
    """Check attempts after a commit in doubt, before they are decided again.

    A claim that was committed and has since been cancelled, erased or expired must not get a second unit.

    Raises:
        UnavailableError: there is such a claim.
    """
    ids = {"ids": [attempt.claim_id for attempt in attempts], "user_ids": [attempt.user_id for attempt in attempts]}
    if await (await driver.execute(_ENDED, ids)).fetchone() is not None:
        raise UnavailableError("the claim was made, and has ended since; look it up", dependency="postgresql")


async def _sell(
    driver: Driver, coupon_name: str, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
) -> datetime:
    """Give a unit to each of these attempts and batches of one coupon, and commit, in one round trip.

    Raises:
        _NotForAllError: at least one cannot get a unit, or a batch was decided before; nothing was written.
    """
    claim_ids = [attempt.claim_id for attempt in attempts]
    user_ids = [attempt.user_id for attempt in attempts]
    units = len(attempts)
    for batch in batches:
        claim_ids.append(batch.claim_ids)
        user_ids.append(batch.user_ids)
        units += batch.size
    parameters: dict[str, Any] = {
        "coupon_name": coupon_name,
        "units": units,
        "claim_ids": "\n".join(claim_ids),
        "user_ids": _lines(user_ids, units),
    }
    if batches:
        parameters["batch_ids"] = [batch.id for batch in batches]
        parameters["first_batch"] = min(batch.id for batch in batches)
    try:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            sold = await driver.execute(_SELL_HANDED if batches else _SELL, parameters)
            await driver.execute("COMMIT", prepare=False)
    except psycopg.IntegrityError as error:
        raise _NotForAllError from error
    ((claimed_at, _),) = await sold.fetchall()
    if claimed_at is None:
        raise _NotForAllError
    return cast("datetime", claimed_at)


async def _admit(
    driver: Driver, coupon_names: list[str], attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
) -> tuple[list[FastPathOutcome], list[HandedOutcomes]]:
    """Lock the coupons, allocate their stock, and commit, in one round trip; in two with handed batches.

    If a statement fails, the server skips those after it, including the commit. Results are available only after the
    end of the pipeline.
    """
    ours = await begin_fenced(driver, coupon_names, batches, plain_only=True) if batches else set()
    everyone = [*attempts, *(attempt for batch in batches if batch.id in ours for attempt in batch.attempts)]
    if not everyone:
        await driver.execute("ROLLBACK", prepare=False)
        return [], [None] * len(batches)
    parameters = _names_and_users(everyone) | {
        "claim_ids": "\n".join([attempt.claim_id for attempt in everyone]),
        "fenced_names": "\n".join({batch.coupon_name for batch in batches if batch.id in ours}),
    }
    async with driver.pipeline():
        if not batches:
            # Without BEGIN and COMMIT, a pipeline is a transaction too, but then libpq loses a failure of its commit.
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_COUPONS, {"coupon_names": coupon_names})
        admitted = await driver.execute(_ADMIT, parameters)
        await driver.execute("COMMIT", prepare=False)
    outcomes: list[FastPathOutcome] = []
    for attempt, (known, is_plain, claimed_at, other_id, is_spent) in zip(
        everyone, await admitted.fetchall(), strict=True
    ):
        if known and not is_plain:
            outcomes.append(_NEEDS_FULL_PATH)
        elif is_spent:
            outcomes.append(_TOO_MANY_CLAIMS)
        elif claimed_at is None:
            outcomes.append(_SOLD_OUT if known else UnknownCoupon())
        elif other_id is None:
            outcomes.append(Claimed(_claim(attempt, attempt.claim_id, claimed_at)))
        else:
            outcomes.append(AlreadyClaimed(_claim(attempt, other_id, claimed_at)))
    return outcomes[: len(attempts)], handed_outcomes(outcomes[len(attempts) :], batches, ours)


def _names_and_users(attempts: Sequence[Attempt]) -> dict[str, str]:
    return {
        "coupon_names": _lines([attempt.coupon_name for attempt in attempts], len(attempts)),
        "user_ids": _lines([attempt.user_id for attempt in attempts], len(attempts)),
    }


def _lines(texts: Sequence[str], count: int) -> str:
    """Join texts as `count` lines of one parameter, which costs the driver a fraction of what an array costs.

    Raises:
        psycopg.DataError: one of the texts contains a line break.
    """
    lines = "\n".join(texts)
    if lines.count("\n") != count - 1:
        raise psycopg.DataError("a name or a user id contains a line break")
    return lines


def _claim(attempt: Attempt, claim_id: str, claimed_at: datetime) -> Claim:
    return Claim(claim_id, attempt.coupon_name, attempt.user_id, ClaimState.ACTIVE, claimed_at)
