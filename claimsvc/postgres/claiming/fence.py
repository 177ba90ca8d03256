"""The fence of handed batches: whoever commits the id of a batch first has decided it; nobody else gets anything of it.

Ids are kept for a day. The purge raises `coupons.fenced_after`: ids up to it are refused, so a batch that was forgotten
is never decided again, whatever the clocks say. Nor is one that is older than the coupon.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from claimsvc.domain import Attempt, Claimed
from claimsvc.ports import AllClaimed, HandedBatch
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.tables import DAY_AGO

_Outcome = TypeVar("_Outcome")

# A transaction that admits claims first locks the coupons' rows in a separate statement. The snapshot of the next
# statement is then newer than the locks, and sees every claim committed before them. Locking in the order of the names
# prevents deadlocks.
LOCK_COUPONS = "SELECT name FROM coupons WHERE name = ANY (%(coupon_names)s) ORDER BY name FOR NO KEY UPDATE"

FENCE = """
INSERT INTO handed_batches (coupon_name, id)
SELECT coupon.name, batch.id
FROM unnest(%(names)s::text[], %(ids)s::uuid[]) AS batch (coupon_name, id)
CROSS JOIN LATERAL (
    SELECT name FROM coupons
    WHERE name = batch.coupon_name AND batch.id > fenced_after
        AND (NOT %(plain_only)s OR plain_until IS NULL OR plain_until > clock_timestamp())
    LIMIT 1
) AS coupon
ON CONFLICT DO NOTHING
RETURNING id::text
"""

# Forgets ids of one coupon. Its row is locked first, as for claims.
PURGE_FENCE = f"""
WITH RECURSIVE first_batch AS (
    (SELECT coupon_name, id FROM handed_batches ORDER BY coupon_name, id LIMIT 1)
    UNION ALL
    SELECT following.coupon_name, following.id
    FROM first_batch CROSS JOIN LATERAL (
        SELECT coupon_name, id FROM handed_batches
        WHERE coupon_name > first_batch.coupon_name ORDER BY coupon_name, id LIMIT 1
    ) AS following
), purged AS MATERIALIZED (
    SELECT coupon_name, {DAY_AGO} AS until FROM first_batch WHERE id < {DAY_AGO} LIMIT 1
), raised AS (
    UPDATE coupons SET fenced_after = greatest(fenced_after, purged.until)
    FROM purged WHERE name = purged.coupon_name
    RETURNING 1
), old AS MATERIALIZED (
    SELECT batch.coupon_name, batch.id
    FROM purged CROSS JOIN LATERAL (
        SELECT coupon_name, id FROM handed_batches
        WHERE coupon_name = purged.coupon_name AND id < purged.until
        LIMIT %(most)s
    ) AS batch
), deleted AS (
    -- Reads the result of the update, which comes first then.
    DELETE FROM handed_batches AS batch USING old
    WHERE batch.coupon_name = old.coupon_name AND batch.id = old.id AND (SELECT count(*) FROM raised) >= 0
    RETURNING 1
)
SELECT count(*) FROM deleted
"""  # noqa: S608 - of constants


async def begin_fenced(
    driver: Driver,
    coupon_names: list[str],
    batches: Sequence[HandedBatch],
    *,
    plain_only: bool = False,
    lock_timeout: str = "",
) -> set[str]:
    """Begin a transaction, lock the coupons, and put the fence around the batches.

    Args:
        plain_only: leave out the batches of coupons that need the full path.
        lock_timeout: how long to wait for the coupons, if not as long as usual.

    Returns:
        The ids of the batches that this transaction may decide.
    """
    async with driver.pipeline():
        await driver.execute("BEGIN", prepare=False)
        if lock_timeout:
            await driver.execute("SELECT set_config('lock_timeout', %(timeout)s, true)", {"timeout": lock_timeout})
        await driver.execute(LOCK_COUPONS, {"coupon_names": coupon_names})
        fenced = await driver.execute(FENCE, parameters_of(batches, plain_only=plain_only))
    return {id_ for (id_,) in await fenced.fetchall()}


def parameters_of(batches: Sequence[HandedBatch], *, plain_only: bool = False) -> dict[str, object]:
    """Return the parameters of `FENCE`."""
    return {
        "names": [batch.coupon_name for batch in batches],
        "ids": [batch.id for batch in batches],
        "plain_only": plain_only,
    }


def names_of(attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> list[str]:
    """Return the names of the coupons of attempts and batches, in order."""
    return sorted({each.coupon_name for each in attempts} | {each.coupon_name for each in batches})


def handed_outcomes(
    outcomes: Sequence[_Outcome], batches: Sequence[HandedBatch], ours: Collection[str]
) -> list[AllClaimed | Sequence[_Outcome] | None]:
    """Divide the outcomes of the attempts of batches among them.

    Args:
        outcomes: of the attempts of those batches that are `ours`, in their order.
        batches: in their order.
        ours: the ids of the batches that were decided; the others get None.
    """
    remaining = iter(outcomes)
    handed: list[AllClaimed | Sequence[_Outcome] | None] = []
    for batch in batches:
        if batch.id not in ours:
            handed.append(None)
            continue
        of_batch = list(islice(remaining, batch.size))
        times = {_plain_time(each) for each in of_batch}
        claimed_at = times.pop() if len(times) == 1 else None
        handed.append(of_batch if claimed_at is None else AllClaimed(claimed_at))
    return handed


def _plain_time(outcome: object) -> datetime | None:
    """Return when a unit was claimed, if the time is all that is to be told of the claim."""
    if type(outcome) is not Claimed or outcome.claim.expires_at is not None or outcome.claim.code is not None:
        return None
    return outcome.claim.claimed_at
