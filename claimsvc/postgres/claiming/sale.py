"""The sale: one statement gives every claim of a batch a unit, on coupons with terms and to claims with options.

The full path decides claim by claim, by facts that it reads first. A hot coupon's batches mostly get all that they ask
for. So the coupon's row is locked, and the next statement, whose snapshot is newer than the lock, gives all units with
their codes, holds and stored answers, or does nothing. Whatever it cannot do, the full path does.

What a claim states about its user is compared with the coupon's rules here. The terms are those of an earlier batch:
`campaigns.xmin` tells the version of the row, and the statement gives nothing under another one.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

import psycopg

from claimsvc.domain import Attempt, Claim, Claimed, ClaimOptions, ClaimState, EligibilityRules
from claimsvc.domain.admission import CouponFacts
from claimsvc.ports import AllClaimed, HandedBatch
from claimsvc.postgres.claiming.claims_per_user import ended_claims
from claimsvc.postgres.claiming.code_pool import next_codes
from claimsvc.postgres.claiming.fence import LOCK_COUPONS
from claimsvc.postgres.code_rows import terms_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.idempotency import claimed_as_json, time_as_json
from claimsvc.postgres.transactions import RestartTransactionError

_NO_OPTIONS = ClaimOptions()


class NotForAllError(RestartTransactionError):
    """Not all of the claims can get a unit; nothing was written."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a sale takes for granted of a coupon.

    Args:
        version: of the campaign's row; None without one. If it is another one by now, nothing is sold.
        per_user_limit: units that a user may hold.
        most_claims: claims that a user may make in all.
        has_slots: whether users may have units in other slots than the first.
        has_codes: whether each unit comes with a code.
        types: under which the codes are counted; empty without codes.
        rules: about attributes; None without any.
    """

    version: str | None
    per_user_limit: int
    most_claims: int
    has_slots: bool
    has_codes: bool
    types: frozenset[str | None]
    rules: EligibilityRules | None

    @classmethod
    def of(cls, coupon: CouponFacts) -> "Terms | None":
        """Return the terms of a coupon; None if they depend on more than a sale looks at."""
        campaign = coupon.campaign
        rules = campaign.rules
        if campaign.has_allow_list or campaign.has_deny_list or (rules and (rules.holds or rules.holds_not)):
            return None
        return cls(
            coupon.version,
            campaign.per_user_limit,
            campaign.most_claims,
            campaign.per_user_limit > 1 or coupon.had_higher_limit,
            coupon.has_codes,
            frozenset(coupon.counted_types) if coupon.has_codes else frozenset(),
            rules,
        )


class _Shape(NamedTuple):
    """What a batch needs. Each shape has a statement of its own, which does nothing that is not needed."""

    codes: bool
    slots: bool
    holds: bool
    keys: bool
    fence: bool


@cache
def selling(shape: _Shape) -> str:
    """Return the statement of a shape. It returns the moment; the codes in their order, and their terms if any has."""
    written = ["admitted", *(["given"] if shape.codes else ())]
    sound = " AND ".join(f"(SELECT count(*) FROM {name}) = units" for name in written)  # noqa: S608
    if shape.keys:
        sound += " AND (SELECT count(*) FROM answered) = (SELECT count(key) FROM attempt)"
    return f"""
WITH attempt AS (
    {_attempt(shape)}
){_own() if shape.slots else ""}{_free() if shape.codes else ""}, sold AS (
    UPDATE coupons
    SET remaining_amount = remaining_amount - %(units)s{", plain_until = 'epoch'" if shape.holds else ""}
    WHERE name = %(coupon_name)s AND remaining_amount >= %(units)s
        AND {" AND ".join(_conditions(shape))}
    RETURNING name, %(units)s AS units, statement_timestamp() AS sold_at{_AS_TEXT if shape.keys else ""}
), admitted AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, slot, held_until)
    SELECT claim_id, sold.name, user_id, 'active', sold_at, {"slot" if shape.slots else "1"}, {_held_until(shape)}
    FROM sold CROSS JOIN attempt{" JOIN own USING (place, user_id)" if shape.slots else ""}
    RETURNING 1
){_GIVEN if shape.codes else ""}{_answered(shape) if shape.keys else ""}{_FENCED if shape.fence else ""}
-- If the numbers differ, the division by zero rolls everything back.
SELECT sold_at, 1 / ({sound})::int{_CODES if shape.codes else ", NULL, NULL"} FROM sold
"""  # noqa: S608 - of constants


_AS_TEXT = f", {time_as_json('statement_timestamp()')} AS sold_text"
# One value of each for all claims, which costs the driver a fraction of what rows cost.
_CODES = """, (SELECT json_agg(code ORDER BY nth) FROM free),
    (SELECT json_agg(terms ORDER BY nth) FROM free HAVING count(terms) > 0)"""


def _attempt(shape: _Shape) -> str:
    """The claims, each column a parameter of lines. An empty line is NULL where an option may be missing."""
    columns = {"claim_id": "string_to_array(%(claim_id)s, E'\\n')::uuid[]", "user_id": _LINES}
    if shape.holds:
        columns["hold_seconds"] = "string_to_array(%(hold_seconds)s, E'\\n', '')::int[]"
    if shape.keys:
        columns["key"] = "string_to_array(%(key)s, E'\\n', '')"
        columns |= dict.fromkeys(("caller", "fingerprint", "request_id"), _LINES)
    arrays = ", ".join(form.replace("column", name) for name, form in columns.items())
    return f"SELECT * FROM unnest({arrays}) WITH ORDINALITY AS given ({', '.join(columns)}, place)"  # noqa: S608


_LINES = "string_to_array(%(column)s, E'\\n')"


def _conditions(shape: _Shape) -> Iterator[str]:
    yield """(
            SELECT xmin::text FROM campaigns WHERE coupon_name = %(coupon_name)s
        ) IS NOT DISTINCT FROM %(version)s AND NOT EXISTS (
            SELECT FROM campaigns WHERE coupon_name = %(coupon_name)s AND (
                paused OR archived_at IS NOT NULL OR starts_at > statement_timestamp()
                OR ends_at <= statement_timestamp()
            )
        )"""
    # The full path returns what has expired first: its units and codes are the next.
    # The order keeps the planner at one look-up in the index of those that can expire.
    yield """(
            SELECT held_until FROM user_claims
            WHERE coupon_name = %(coupon_name)s AND state = 'active' AND held_until <= statement_timestamp()
            ORDER BY held_until LIMIT 1
        ) IS NULL"""
    # Who holds a unit in the only slot is refused by its unique index.
    claimant, held = ("own", "own.claims + ") if shape.slots else ("attempt", "")
    ended = ended_claims("%(coupon_name)s", f"{claimant}.user_id", most="%(most_claims)s")
    yield f"(ended_count = 0 OR NOT EXISTS (SELECT FROM {claimant} WHERE {held}{ended} >= %(most_claims)s))"
    if shape.slots:
        yield "NOT EXISTS (SELECT FROM own WHERE claims >= %(limit)s OR held > 0)"
    if shape.codes:
        yield """(
            SELECT expires_at FROM codes
            WHERE coupon_name = %(coupon_name)s AND claim_id IS NULL AND voided_at IS NULL
                AND expires_at <= statement_timestamp()
            ORDER BY expires_at LIMIT 1
        ) IS NULL AND (SELECT count(*) FROM free) = %(units)s"""
    if shape.fence:
        yield "fenced_after < %(first_batch)s::uuid"


def _own() -> str:
    """The active claims of each user, and the first slot that is free. LIMIT: see `fast_path`."""
    return """, own AS (
    SELECT place, user_id, claims, held, CASE WHEN claims = 0 THEN 1 ELSE (
        SELECT number FROM generate_series(1, claims + 1) AS number
        WHERE number <> ALL (slots) ORDER BY number LIMIT 1
    ) END AS slot
    FROM attempt CROSS JOIN LATERAL (
        SELECT count(*) AS claims, count(held_until) AS held, array_agg(slot) AS slots
        FROM (
            SELECT slot, held_until FROM user_claims
            WHERE coupon_name = %(coupon_name)s AND user_id = attempt.user_id AND state = 'active'
            ORDER BY slot
            LIMIT 1001
        ) AS claim
    ) AS user_claims
)"""


def _free() -> str:
    return f""", free AS (
    SELECT code, terms, row_number() OVER (ORDER BY place) AS nth
    FROM ({next_codes("%(coupon_name)s", "%(units)s", now="statement_timestamp()")}) AS next_code
)"""  # noqa: S608 - of constants


# For num_nonnulls, see `code_pool.GIVE_CODES`.
_GIVEN = """, given AS (
    UPDATE codes SET claim_id = attempt.claim_id
    FROM sold CROSS JOIN free JOIN attempt ON attempt.place = free.nth
    WHERE codes.coupon_name = sold.name AND codes.code = free.code
        AND num_nonnulls(codes.claim_id, codes.voided_at) = 0
    RETURNING 1
)"""

# It fails on the fence's unique key if one of the handed batches was decided before.
_FENCED = """, fenced AS (
    INSERT INTO handed_batches (coupon_name, id)
    SELECT sold.name, batch.id FROM sold CROSS JOIN unnest(%(batch_ids)s::uuid[]) AS batch (id)
)"""


def _held_until(shape: _Shape) -> str:
    return "sold_at + hold_seconds * interval '1 second'" if shape.holds else "NULL::timestamptz"


def _answered(shape: _Shape) -> str:
    """Stores the answers. An answer that is there already, even one past its retention, fails on the unique key."""
    answer = claimed_as_json(
        held_until=_held_until(shape),
        code="free.code" if shape.codes else "NULL",
        terms="free.terms" if shape.codes else "NULL::jsonb",
    )
    # In the order of `idempotency.store`.
    return f""", answered AS (
    INSERT INTO idempotent_answers (caller, key, fingerprint, answer, request_id)
    SELECT caller, key, decode(fingerprint, 'hex'), {answer}, request_id
    FROM sold CROSS JOIN attempt{" JOIN free ON free.nth = attempt.place" if shape.codes else ""}
    WHERE key IS NOT NULL
    ORDER BY caller, key
    RETURNING 1
)"""  # noqa: S608 - of constants


async def sell(
    driver: Driver, coupon_name: str, terms: Terms, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
) -> tuple[list[Claimed], list[AllClaimed | Sequence[Claimed]]]:
    """Give a unit to each of these attempts and batches of one coupon, and commit, in one round trip.

    Args:
        driver: a connection outside a transaction.
        coupon_name: the coupon of all of them.
        terms: of the coupon, as they were.
        attempts: claims that were not handed over.
        batches: handed batches.

    Raises:
        NotForAllError: at least one cannot get a unit, or a batch was decided before; nothing was written.
    """
    claims = _Claims(coupon_name, terms, attempts, batches)
    try:
        async with driver.pipeline():
            await driver.execute("BEGIN", prepare=False)
            await driver.execute(LOCK_COUPONS, {"coupon_names": [coupon_name]})
            sold = await driver.execute(selling(claims.shape), claims.parameters())
            await driver.execute("COMMIT", prepare=False)
    except (psycopg.IntegrityError, psycopg.errors.DeadlockDetected) as error:
        raise NotForAllError from error
    row = await sold.fetchone()
    if row is None:
        raise NotForAllError
    sold_at, _, codes, terms_of_codes = row
    return claims.outcomes(sold_at, codes, terms_of_codes)


class _Claims:
    """The claims of a sale: those of the attempts, and after them those of the handed batches.

    Raises:
        NotForAllError: the claims cannot all get a unit.
    """

    def __init__(
        self, coupon_name: str, terms: Terms, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> None:
        self._coupon_name = coupon_name
        self._terms = terms
        self._attempts = attempts
        self._batches = batches
        self._units = len(attempts) + sum(batch.size for batch in batches)
        self._options = [each.options for each in attempts]
        for batch in batches:
            self._options += batch.options or [None] * batch.size
        self._has_holds = self._has_keys = False
        for options in self._options:
            if options is not None:
                self._has_holds = self._has_holds or options.hold_seconds is not None
                self._has_keys = self._has_keys or options.idempotency_key is not None
        self._require_rules()
        self._user_ids = _lines(
            [*(each.user_id for each in attempts), *(each.user_ids for each in batches)], self._units
        )
        if terms.has_slots and len(set(self._user_ids.split("\n"))) < self._units:
            raise NotForAllError

    def _require_rules(self) -> None:
        rules = self._terms.rules
        if rules is None:
            return
        for options in self._options:
            given = options or _NO_OPTIONS
            if next(rules.broken(given.attributes, given.token, _holds_none), None) is not None:
                raise NotForAllError

    @property
    def shape(self) -> _Shape:
        return _Shape(
            codes=self._terms.has_codes,
            slots=self._terms.has_slots,
            holds=self._has_holds,
            keys=self._has_keys,
            fence=bool(self._batches),
        )

    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "coupon_name": self._coupon_name,
            "units": self._units,
            "version": self._terms.version,
            "limit": self._terms.per_user_limit,
            "most_claims": self._terms.most_claims,
            "claim_id": "\n".join(
                [*(each.claim_id for each in self._attempts), *(each.claim_ids for each in self._batches)]
            ),
            "user_id": self._user_ids,
        }
        if self._has_holds:
            parameters["hold_seconds"] = "\n".join([_seconds(options) for options in self._options])
        if self._has_keys:
            parameters |= self._keys()
        if self._batches:
            parameters["batch_ids"] = [batch.id for batch in self._batches]
            parameters["first_batch"] = min(batch.id for batch in self._batches)
        return parameters

    def _keys(self) -> dict[str, str]:
        keys = [options.idempotency_key if options is not None else None for options in self._options]
        lines = {
            "key": [key.key if key is not None else "" for key in keys],
            "caller": [key.caller if key is not None else "" for key in keys],
            "request_id": [key.request_id if key is not None else "" for key in keys],
            "fingerprint": [key.fingerprint.hex() if key is not None else "" for key in keys],
        }
        return {name: _lines(texts, self._units) for name, texts in lines.items()}

    def outcomes(
        self, sold_at: datetime, codes: Iterable[str] | None, terms_of_codes: Iterable[Any] | None
    ) -> tuple[list[Claimed], list[AllClaimed | Sequence[Claimed]]]:
        if codes is None and not self._has_holds:
            own = [Claimed(_claim(attempt, sold_at)) for attempt in self._attempts]
            return own, [AllClaimed(sold_at)] * len(self._batches)
        none = repeat(None)
        everyone = zip(
            none if codes is None else codes, none if terms_of_codes is None else terms_of_codes, strict=False
        )
        own = [Claimed(_claim_with(each, sold_at, *next(everyone))) for each in self._attempts]
        handed: list[AllClaimed | Sequence[Claimed]] = [
            [Claimed(_claim_with(each, sold_at, *next(everyone))) for each in batch.attempts] for batch in self._batches
        ]
        return own, handed


def _claim(attempt: Attempt, sold_at: datetime) -> Claim:
    return Claim(attempt.claim_id, attempt.coupon_name, attempt.user_id, ClaimState.ACTIVE, sold_at)


def _claim_with(attempt: Attempt, sold_at: datetime, code: str | None, terms: Any) -> Claim:
    seconds = attempt.options.hold_seconds if attempt.options is not None else None
    if seconds is None:
        return Claim(
            attempt.claim_id,
            attempt.coupon_name,
            attempt.user_id,
            ClaimState.ACTIVE,
            sold_at,
            code=code,
            terms=terms_of(terms),
        )
    # Its code is not shown while it is held.
    until = sold_at + timedelta(seconds=seconds)
    return Claim(attempt.claim_id, attempt.coupon_name, attempt.user_id, ClaimState.HELD, sold_at, until)


def _lines(texts: Sequence[str], count: int) -> str:
    """Join texts as lines of one parameter, which costs the driver a fraction of what an array costs.

    Raises:
        NotForAllError: one of them contains a line break.
    """
    lines = "\n".join(texts)
    if lines.count("\n") != count - 1:
        raise NotForAllError
    return lines


def _seconds(options: ClaimOptions | None) -> str:
    return "" if options is None or options.hold_seconds is None else str(options.hold_seconds)


def _holds_none(_: str) -> bool:
    return False
