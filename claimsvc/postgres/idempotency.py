"""Answers stored under idempotency keys, in the transaction of the request that they answer.

If another transaction has stored an answer under the same key meanwhile, the transaction restarts and returns that one.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from claimsvc.domain import IdempotencyKey, KeyReused, Outcome, Replayed
from claimsvc.domain.admission import AnswerRecord, replay
from claimsvc.domain.outcomes import is_stored
from claimsvc.domain.stored_answers import decode, encode
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.transactions import RestartTransactionError

RETENTION = "interval '24 hours'"

Rows = psycopg.AsyncCursor[tuple[Any, ...]]
_T = TypeVar("_T", bound=Outcome)

_ANSWERS = f"""
SELECT requested.caller, requested.key, stored.fingerprint, stored.answer, stored.request_id
FROM unnest(%(callers)s::text[], %(keys)s::text[]) AS requested (caller, key)
CROSS JOIN LATERAL (
    SELECT fingerprint, answer, request_id
    FROM idempotent_answers
    WHERE caller = requested.caller AND key = requested.key AND kept_at > now() - {RETENTION}
    LIMIT 1
) AS stored
"""  # noqa: S608 - of constants

# Ordered by key to prevent deadlocks. An answer past its retention is replaced. If another transaction has stored an
# answer meanwhile, its row is not replaced; casting the text to int then fails and rolls everything back.
_STORE = f"""
WITH stored AS (
    INSERT INTO idempotent_answers AS old (caller, key, fingerprint, answer, request_id)
    SELECT caller, key, fingerprint, answer, request_id
    FROM unnest(
        %(callers)s::text[], %(keys)s::text[], %(fingerprints)s::bytea[], %(answers)s::jsonb[], %(request_ids)s::text[]
    ) AS answer (caller, key, fingerprint, answer, request_id)
    ORDER BY caller, key
    ON CONFLICT (caller, key) DO UPDATE SET fingerprint = excluded.fingerprint, answer = excluded.answer,
        request_id = excluded.request_id, kept_at = clock_timestamp()
        WHERE old.kept_at <= now() - {RETENTION}
    RETURNING 1
)
SELECT CASE WHEN count(*) = %(count)s THEN '1' ELSE 'stored by another' END::int FROM stored
"""  # noqa: S608 - of constants
STORED_BY_ANOTHER = psycopg.errors.InvalidTextRepresentation
"""The error of a transaction whose key got an answer from another transaction meanwhile."""


def claimed_as_json(*, held_until: str, code: str, terms: str) -> str:
    """Return an expression: what `encode` returns for a claim that was given a unit.

    Args:
        held_until: the expression of when its hold expires, NULL if it is not held.
        code: that of its code.
        terms: that of the code's terms, as JSON.

    Its other columns are `claim_id`, `user_id`, and those of `sold`: `name`, and `sold_text` as `time_as_json` has it.
    """
    return f"""jsonb_build_object('kind', 'claimed', 'value', jsonb_build_object('claim', jsonb_build_object(
        'id', claim_id, 'coupon_name', sold.name, 'user_id', user_id, 'claimed_at', sold_text,
        'state', CASE WHEN {held_until} IS NULL THEN 'active' ELSE 'held' END,
        'expires_at', {time_as_json(held_until)}, 'ended_at', NULL,
        'code', CASE WHEN {held_until} IS NULL THEN {code} END,
        'terms', CASE WHEN {held_until} IS NULL THEN {terms} END
    )))"""


def time_as_json(time: str) -> str:
    """Return an expression: a time as stored answers have it."""
    return f"""to_char(({time}) AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


async def look_up(driver: Driver, *requests: IdempotencyKey | None) -> Rows | None:
    """Query the answers stored under the keys of requests, in a started transaction. None without any key."""
    keys = [each for each in requests if each is not None]
    if not keys:
        return None
    parameters = {"callers": [each.caller for each in keys], "keys": [each.key for each in keys]}
    return await driver.execute(_ANSWERS, parameters)


async def found(rows: Rows | None) -> dict[tuple[str, str], AnswerRecord]:
    """Return the answers that `look_up` found, by caller and key."""
    if rows is None:
        return {}
    return {
        (caller, key): AnswerRecord(fingerprint, decode(answer), request_id)
        for caller, key, fingerprint, answer, request_id in await rows.fetchall()
    }


async def store(driver: Driver, answers: Sequence[tuple[IdempotencyKey, Outcome]]) -> None:
    """Store answers under their keys.

    Raises:
        STORED_BY_ANOTHER: a key has an answer already. In a pipeline, this is raised at its end at the latest.
    """
    if not answers:
        return
    await driver.execute(
        _STORE,
        {
            "callers": [key.caller for key, _ in answers],
            "keys": [key.key for key, _ in answers],
            "fingerprints": [key.fingerprint for key, _ in answers],
            "answers": [Jsonb(encode(answer)) for _, answer in answers],
            "request_ids": [key.request_id for key, _ in answers],
            "count": len(answers),
        },
    )


async def concluded(
    driver: Driver, idempotency_key: IdempotencyKey | None, rows: Rows | None, answer: _T, in_doubt: bool
) -> _T | Replayed | KeyReused:
    """End a transaction: store `answer` and commit, or roll back and return the answer that is stored already.

    Args:
        driver: the connection of the transaction.
        idempotency_key: the request's key; None to commit without storing.
        rows: the result of `look_up` at the start of the transaction.
        answer: the result of the transaction.
        in_doubt: an earlier commit of this request may have succeeded; see `run_transaction`.

    Raises:
        RestartTransactionError: another transaction has stored an answer meanwhile.
    """
    if idempotency_key is not None:
        stored = (await found(rows)).get((idempotency_key.caller, idempotency_key.key))
        if stored is not None:
            await driver.execute("ROLLBACK", prepare=False)
            repeated: _T | Replayed | KeyReused = replay(stored, idempotency_key, in_doubt)
            return repeated
    try:
        async with driver.pipeline():
            if idempotency_key is not None and is_stored(answer, keeps_all=idempotency_key.keeps_all):
                await store(driver, [(idempotency_key, answer)])
            await driver.execute("COMMIT", prepare=False)
    except STORED_BY_ANOTHER as error:
        raise RestartTransactionError from error
    return answer
