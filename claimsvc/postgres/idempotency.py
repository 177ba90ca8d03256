"""Answers that are kept under a key, in the transaction of what they answer.

Whoever finds that another transaction has kept an answer under its key meanwhile begins anew, and finds that answer.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from claimsvc.domain import IdempotencyKey, KeyReused, Outcome, Replayed
from claimsvc.domain.admission import AnswerRecord, replay
from claimsvc.postgres.claiming.outcomes import decode, encode
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.transactions import RestartTransactionError

KEPT_FOR = "interval '24 hours'"

Rows = psycopg.AsyncCursor[tuple[Any, ...]]
_T = TypeVar("_T", bound=Outcome)

_ANSWERS = f"""
SELECT asked.caller, asked.key, kept.fingerprint, kept.answer, kept.request_id
FROM unnest(%(callers)s::text[], %(keys)s::text[]) AS asked (caller, key)
CROSS JOIN LATERAL (
    SELECT fingerprint, answer, request_id
    FROM idempotent_answers
    WHERE caller = asked.caller AND key = asked.key AND kept_at > now() - {KEPT_FOR}
    LIMIT 1
) AS kept
"""  # noqa: S608 - of constants

# In the order of the keys, so that two transactions never wait for each other. An answer that is too old is replaced;
# one that another transaction has kept meanwhile is not, and then nothing of this is kept: the number has no digits.
_KEEP = f"""
WITH kept AS (
    INSERT INTO idempotent_answers AS old (caller, key, fingerprint, answer, request_id)
    SELECT caller, key, fingerprint, answer, request_id
    FROM unnest(
        %(callers)s::text[], %(keys)s::text[], %(fingerprints)s::bytea[], %(answers)s::jsonb[], %(request_ids)s::text[]
    ) AS answer (caller, key, fingerprint, answer, request_id)
    ORDER BY caller, key
    ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
        request_id = excluded.request_id, kept_at = clock_timestamp()
        WHERE old.kept_at <= now() - {KEPT_FOR}
    RETURNING 1
)
SELECT CASE WHEN count(*) = %(count)s THEN '1' ELSE 'kept by another' END::int FROM kept
"""  # noqa: S608 - of constants
KEPT_BY_ANOTHER = psycopg.errors.InvalidTextRepresentation
"""What a transaction fails with that would keep an answer under a key that has one by now."""


async def look_up(driver: Driver, *requests: IdempotencyKey | None) -> Rows | None:
    """Ask for what is kept under the keys of these requests, in a transaction that has begun."""
    asked = [once for once in requests if once is not None]
    if not asked:
        return None
    keys = {"callers": [once.caller for once in asked], "keys": [once.key for once in asked]}
    return await driver.execute(_ANSWERS, keys)


async def found(rows: Rows | None) -> dict[tuple[str, str], AnswerRecord]:
    """What `look_up` has found, by caller and key."""
    if rows is None:
        return {}
    return {
        (caller, key): AnswerRecord(fingerprint, decode(answer), request_id)
        for caller, key, fingerprint, answer, request_id in await rows.fetchall()
    }


async def keep(driver: Driver, kept: Sequence[tuple[IdempotencyKey, Outcome]]) -> None:
    """Keep answers. Fails with `KEPT_BY_ANOTHER`, by the end of the pipeline that this is in."""
    if not kept:
        return
    await driver.execute(
        _KEEP,
        {
            "callers": [once.caller for once, _ in kept],
            "keys": [once.key for once, _ in kept],
            "fingerprints": [once.fingerprint for once, _ in kept],
            "answers": [Jsonb(encode(answer)) for _, answer in kept],
            "request_ids": [once.request_id for once, _ in kept],
            "count": len(kept),
        },
    )


async def concluded(
    driver: Driver, once: IdempotencyKey | None, rows: Rows | None, answer: _T, in_doubt: bool
) -> _T | Replayed | KeyReused:
    """End a transaction that came to `answer`: it is kept with what it answers; or all is undone, if there is one.

    Args:
        rows: what `look_up` asked for once the transaction had begun.
        in_doubt: see `storage.transactions.decided`.

    Raises:
        BeginAnewError: another transaction has kept one meanwhile.
    """
    stored = (await found(rows)).get((once.caller, once.key)) if once is not None else None
    if once is not None and stored is not None:
        await driver.execute("ROLLBACK", prepare=False)
        told: _T | Replayed | KeyReused = replay(stored, once, in_doubt)
        return told
    try:
        async with driver.pipeline():
            await keep(driver, [(once, answer)] if once is not None else [])
            await driver.execute("COMMIT", prepare=False)
    except KEPT_BY_ANOTHER as error:
        raise RestartTransactionError from error
    return answer
