"""The full path: decides claims of coupons with terms, and claims with options, in two round trips.

The first locks the coupons, returns the units of expired holds, and reads facts. `domain.admission` then decides, and
the second round trip writes and commits. Expiry is compared with `now()`, which is the same in all statements of a
transaction. Each statement that writes compares the number of rows with what was decided, and divides by zero if they
differ, which rolls everything back.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from claimsvc.domain import (
    Attempt,
    Campaign,
    Claim,
    Claimed,
    ClaimOutcome,
    CodeTerms,
    IdempotencyKey,
    ListKind,
    NotEligible,
    SoldOut,
)
from claimsvc.domain.admission import BatchEffects, CouponFacts, Facts, OwnClaim, decide, obstacles
from claimsvc.ports import HandedBatch
from claimsvc.postgres.audit import insert_entry_of_claims
from claimsvc.postgres.claiming.claims_per_user import ended_claims, most_claims
from claimsvc.postgres.claiming.code_pool import FREE_CODES, GIVE_CODES, SETTLE_CODES, given_codes
from claimsvc.postgres.claiming.eligibility import HELD_OF_OTHERS, LISTED, rules_of
from claimsvc.postgres.claiming.fast_path import require_none_ended
from claimsvc.postgres.claiming.fast_path_window import UPDATE_PLAIN_UNTIL
from claimsvc.postgres.claiming.fence import LOCK_COUPONS, begin_fenced, handed_outcomes, names_of
from claimsvc.postgres.claiming.holds import SETTLE_HOLDS, SETTLE_HOLDS_OF, holds_of, replace_dead_codes
from claimsvc.postgres.claiming.sale import NotForAllError, Sold, Terms, sell
from claimsvc.postgres.claiming.ticket_ends import end_tickets, found_tickets, has_tickets, lock_tickets
from claimsvc.postgres.claiming.waiting_list import is_to_serve, serve_waiting_list
from claimsvc.postgres.code_changes import CodesChanged
from claimsvc.postgres.code_rows import CODE_TERMS, terms_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database
from claimsvc.postgres.idempotency import STORED_BY_ANOTHER, Rows, found, look_up, store
from claimsvc.postgres.transactions import RestartTransactionError

_COUPONS = """
SELECT coupon.name, coupon.remaining_amount, clock_timestamp(),
    EXISTS (
        SELECT FROM user_claims
        WHERE coupon_name = coupon.name AND state = 'active' AND held_until <= now()
    ) AS is_due,
    campaign.starts_at, campaign.ends_at, coalesce(campaign.paused, false), campaign.archived_at,
    coalesce(campaign.per_user_limit, 1), campaign.rules, campaign.allow_version IS NOT NULL,
    campaign.deny_version IS NOT NULL, campaign.type, coalesce(campaign.has_codes, false),
    campaign.claims_per_user, campaign.code_types, campaign.xmin::text, coalesce(campaign.had_higher_limit, false),
    campaign.waiting_list_seconds
FROM coupons AS coupon LEFT JOIN campaigns AS campaign ON campaign.coupon_name = coupon.name
WHERE coupon.name = ANY (%(coupon_names)s)
"""

# LIMIT keeps the planner at one index look-up per claimant; see `fast_path`.
_CLAIMS = f"""
SELECT claimant.coupon_name, claimant.user_id, claim.id::text, claim.slot, claim.claimed_at, claim.held_until,
    code.code, code.terms, coalesce(claim.held_until IS NOT NULL AND code.expires_at <= now(), false) AS is_dead
FROM (
    SELECT DISTINCT coupon_name, user_id
    FROM unnest(%(names)s::text[], %(user_ids)s::text[]) AS requested (coupon_name, user_id)
) AS claimant
CROSS JOIN LATERAL (
    SELECT id, slot, claimed_at, held_until
    FROM user_claims
    WHERE coupon_name = claimant.coupon_name AND user_id = claimant.user_id AND state = 'active'
        AND (held_until IS NULL OR held_until > now())
    ORDER BY slot
    LIMIT 1000
) AS claim
LEFT JOIN LATERAL (
    SELECT code.code, expires_at, {CODE_TERMS} AS terms FROM codes AS code
    WHERE coupon_name = claimant.coupon_name AND claim_id = claim.id LIMIT 1
) AS code ON true
"""  # noqa: S608 - of constants

# What has expired has ended, even if nobody has returned its unit yet.
_ENDED_CLAIMS = f"""
SELECT claimant.coupon_name, claimant.user_id, made.claims
FROM (
    SELECT DISTINCT coupon_name, user_id
    FROM unnest(%(names)s::text[], %(user_ids)s::text[]) AS requested (coupon_name, user_id)
) AS claimant
CROSS JOIN LATERAL (
    SELECT {ended_claims("claimant.coupon_name", "claimant.user_id", most=most_claims("claimant.coupon_name"))} + (
        SELECT count(*) FROM user_claims
        WHERE coupon_name = claimant.coupon_name AND user_id = claimant.user_id AND state = 'active'
            AND held_until <= now()
    ) AS claims
) AS made
WHERE made.claims > 0
"""  # noqa: S608 - of constants

_GIVE = """
WITH given AS (
    INSERT INTO user_claims (id, coupon_name, user_id, state, claimed_at, slot, held_until)
    SELECT id, coupon_name, user_id, 'active', claimed_at, slot, held_until
    FROM unnest(
        %(ids)s::uuid[], %(names)s::text[], %(user_ids)s::text[], %(times)s::timestamptz[], %(slots)s::smallint[],
        %(held_until)s::timestamptz[]
    ) AS claim (id, coupon_name, user_id, claimed_at, slot, held_until)
    RETURNING coupon_name
), taken AS (
    UPDATE coupons SET remaining_amount = coupons.remaining_amount - given_out.units
    FROM (SELECT coupon_name, count(*) AS units FROM given GROUP BY coupon_name) AS given_out
    WHERE name = given_out.coupon_name AND coupons.remaining_amount >= given_out.units
    RETURNING given_out.units
)
SELECT 1 / (count(*) = %(units)s AND count(*) = (SELECT coalesce(sum(units), 0) FROM taken))::int FROM given
"""

_CONFIRM = f"""
WITH confirmed AS (
    UPDATE user_claims SET held_until = NULL
    FROM unnest(%(names)s::text[], %(ids)s::uuid[]) AS held (coupon_name, id)
    WHERE user_claims.coupon_name = held.coupon_name AND user_claims.id = held.id AND state = 'active'
        AND held_until IS NOT NULL
    RETURNING user_claims.id, user_claims.coupon_name
), audited AS (
    {insert_entry_of_claims("confirmed", "claim.confirm", actor="'claimant'")}
)
SELECT 1 / (count(*) = %(units)s)::int FROM confirmed
"""  # noqa: S608 - of constants


_SELLING_REMEMBERED = 10_000
_SOLD = {Claimed, NotEligible}


class FullPath:
    """Decides attempts on coupons with terms, and attempts with options.

    Args:
        database: where statements run.
        codes_changed: see `CodesChanged`.
    """

    def __init__(self, database: Database, *, codes_changed: CodesChanged = lambda _: None) -> None:
        self._database = database
        self._codes_changed = codes_changed
        # The terms of coupons of which all who are eligible got a unit in the last batch. Most likely, they will again.
        self._selling: dict[str, Terms] = {}

    async def admit(self, attempts: Sequence[Attempt]) -> Sequence[ClaimOutcome]:
        """Decide the attempts in one transaction. Deciding the same attempts again is safe.

        Raises the same errors as `run_transaction`.
        """
        outcomes, _ = await self.admit_handed(attempts, ())
        return outcomes

    async def admit_handed(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> Sold:
        """Decide the attempts, and after them the batches, in one transaction; see `ports.FencedAdmission`.

        Raises the same errors as `run_transaction`.
        """
        names = names_of(attempts, batches)
        terms = self._selling.get(names[0]) if len(names) == 1 else None

        async def work(driver: Driver, in_doubt: bool) -> tuple[Sold, Collection[str | None]]:
            nonlocal terms
            if in_doubt:
                await require_none_ended(driver, attempts)
            if terms is not None and not in_doubt and not has_tickets(attempts, batches):
                try:
                    return await sell(driver, names[0], terms, attempts, batches), terms.types
                except NotForAllError:
                    terms = None
                    self._selling.pop(names[0], None)
                    raise
            ours = await begin_fenced(driver, names, batches) if batches else set()
            everyone = [*attempts, *(attempt for batch in batches if batch.id in ours for attempt in batch.attempts)]
            facts = await _facts(driver, everyone, locked=True, begun=bool(batches))
            effects = decide(facts, everyone, in_doubt=in_doubt)
            has_waiting_list = any(each.campaign.waiting_list_seconds is not None for each in facts.coupons.values())
            await _write(driver, effects, sorted(facts.coupons), has_waiting_list=has_waiting_list)
            self._remember_selling(facts, effects)
            # All types of their codes: codes of others are freed and voided, too.
            with_codes = [coupon for coupon in facts.coupons.values() if coupon.has_codes]
            handed = handed_outcomes(effects.outcomes[len(attempts) :], batches, ours)
            types = {each for coupon in with_codes for each in coupon.counted_types}
            return (effects.outcomes[: len(attempts)], handed), types

        decided, types = await self._database.run_transaction(work)
        if types:
            self._codes_changed(types)
        return decided

    def _remember_selling(self, facts: Facts, effects: BatchEffects) -> None:
        if len(self._selling) >= _SELLING_REMEMBERED:
            self._selling.clear()
        results = {type(outcome) for outcome in effects.outcomes}
        if len(facts.coupons) == 1 and Claimed in results and results <= _SOLD:
            [(name, coupon)] = facts.coupons.items()
            terms = Terms.of(coupon)
            # Whom the lists refuse, a sale cannot tell.
            if terms is not None and not (terms.has_lists and NotEligible in results):
                self._selling[name] = terms

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """Return what the attempts would result in now; see `ports.Admission.look`."""

        async def query(driver: Driver) -> Facts:
            return await _facts(driver, attempts, locked=False)

        facts = await self._database.read(query)
        return [_unless_undecided(facts, attempt) for attempt in attempts]

    async def obstacles(self, attempt: Attempt) -> list[ClaimOutcome]:
        """Return every refusal that applies to an attempt now; see `domain.admission.obstacles`."""

        async def query(driver: Driver) -> Facts:
            return await _facts(driver, [attempt], locked=False)

        return obstacles(await self._database.read(query), attempt)


def _unless_undecided(facts: Facts, attempt: Attempt) -> ClaimOutcome | None:
    """Return what an attempt would result in; None if that would have to be written."""
    effects = decide(facts, [attempt])
    [outcome] = effects.outcomes
    if isinstance(outcome, SoldOut) and not facts.coupons[attempt.coupon_name].is_settled:
        return None
    return outcome if effects.changes_nothing and not isinstance(outcome, Claimed) else None


async def _facts(driver: Driver, attempts: Sequence[Attempt], *, locked: bool, begun: bool = False) -> Facts:
    """Read everything that `decide` needs, in one round trip.

    Args:
        driver: a connection outside a transaction.
        attempts: to be decided.
        locked: lock the coupons, settle expired holds and codes, and leave the transaction open. Held claims whose
            codes have expired are given others or ended, which takes further round trips.
        begun: a transaction that has locked the coupons is open already.
    """
    coupons = {"coupon_names": sorted({attempt.coupon_name for attempt in attempts})}
    async with driver.pipeline():
        if locked:
            if not begun:
                await driver.execute("BEGIN", prepare=False)
                await driver.execute(LOCK_COUPONS, coupons)
            await driver.execute(SETTLE_HOLDS, holds_of(coupons["coupon_names"], claims=len(attempts)))
            await driver.execute(SETTLE_HOLDS_OF, _claimants(attempts))
            await driver.execute(SETTLE_CODES, coupons)
        else:
            await driver.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", prepare=False)
        results = await _ask(driver, attempts, locked=locked)
        if not locked:
            await driver.execute("COMMIT", prepare=False)
    rows = await results.coupons.fetchall()
    if locked and any(is_to_serve(remaining_amount, waiting_list) for _, remaining_amount, *_, waiting_list in rows):
        # Holds have expired here: their units are for those who wait.
        async with driver.pipeline():
            await serve_waiting_list(driver, coupons["coupon_names"])
            results = await _ask(driver, attempts, locked=True)
        rows = await results.coupons.fetchall()
    held = await results.held.fetchall()
    dead = [(coupon_name, claim_id) for coupon_name, _, claim_id, *_, is_dead in held if is_dead]
    if locked and dead and await replace_dead_codes(driver, dead):
        async with driver.pipeline():
            results = await _ask(driver, attempts, locked=True)
        rows = await results.coupons.fetchall()
        held = await results.held.fetchall()
    claims: dict[tuple[str, str], list[OwnClaim]] = defaultdict(list)
    for coupon_name, user_id, claim_id, slot, claimed_at, held_until, code, terms, _ in held:
        claims[coupon_name, user_id].append(OwnClaim(claim_id, slot, claimed_at, held_until, code, terms_of(terms)))
    codes: dict[str, dict[str, CodeTerms | None]] = defaultdict(dict)
    for coupon_name, code, terms in await results.free.fetchall():
        codes[coupon_name][code] = terms_of(terms)
    return Facts(
        {name: _coupon_facts(codes[name], *row) for name, *row in rows},
        claims,
        await found(results.stored),
        {(name, user_id, ListKind(kind)) for name, user_id, kind in await results.listed.fetchall()},
        {(name, user_id) for name, user_id in await results.other_claims.fetchall()},
        {(name, user_id): claims for name, user_id, claims in await results.ended_claims.fetchall()},
        await found_tickets(results.tickets) if locked else None,
    )


class _Results(NamedTuple):
    """What was read for a batch."""

    coupons: Rows
    held: Rows
    free: Rows
    listed: Rows
    other_claims: Rows
    stored: Rows | None
    ended_claims: Rows
    tickets: Rows | None


async def _ask(driver: Driver, attempts: Sequence[Attempt], *, locked: bool) -> _Results:
    """Send the queries of a batch in the current pipeline."""
    wanted = Counter(attempt.coupon_name for attempt in attempts)
    claimants = _claimants(attempts)
    keys = [key for attempt in attempts if (key := _idempotency_key(attempt)) is not None]
    return _Results(
        coupons=await driver.execute(_COUPONS, {"coupon_names": sorted(wanted)}),
        held=await driver.execute(_CLAIMS, claimants),
        free=await driver.execute(FREE_CODES, {"names": list(wanted), "counts": list(wanted.values())}),
        listed=await driver.execute(LISTED, claimants),
        other_claims=await driver.execute(HELD_OF_OTHERS, claimants),
        stored=await look_up(driver, *keys),
        ended_claims=await driver.execute(_ENDED_CLAIMS, claimants),
        tickets=await lock_tickets(driver, attempts) if locked else None,
    )


def _claimants(attempts: Sequence[Attempt]) -> dict[str, Any]:
    return {"names": [each.coupon_name for each in attempts], "user_ids": [each.user_id for each in attempts]}


def _coupon_facts(
    free_codes: Mapping[str, CodeTerms | None],
    remaining_amount: int,
    now: Any,
    is_due: bool,
    starts_at: Any,
    ends_at: Any,
    paused: bool,
    archived_at: Any,
    limit: int,
    rules: Any,
    has_allow_list: bool,
    has_deny_list: bool,
    coupon_type: str | None,
    has_codes: bool,
    claims_per_user: int | None,
    code_types: Sequence[str] | None,
    version: str | None,
    had_higher_limit: bool,
    waiting_list_seconds: int | None,
) -> CouponFacts:
    campaign = Campaign(
        starts_at=starts_at,
        ends_at=ends_at,
        paused=paused,
        archived_at=archived_at,
        per_user_limit=limit,
        type=coupon_type,
        rules=rules_of(rules),
        has_allow_list=has_allow_list,
        has_deny_list=has_deny_list,
        claims_per_user=claims_per_user,
        waiting_list_seconds=waiting_list_seconds,
    )
    return CouponFacts(
        remaining_amount,
        now,
        campaign,
        not is_due,
        has_codes,
        tuple(free_codes),
        {code: terms for code, terms in free_codes.items() if terms is not None},
        tuple(code_types or ()),
        version,
        had_higher_limit,
    )


async def _write(driver: Driver, effects: BatchEffects, coupon_names: list[str], *, has_waiting_list: bool) -> None:
    """Write the effects of a batch, and commit."""
    try:
        async with driver.pipeline():
            if effects.given:
                await driver.execute(_GIVE, _units(effects))
            if codes := [(each.claim.id, each.claim.coupon_name, each.code) for each in effects.given if each.code]:
                await driver.execute(GIVE_CODES, given_codes(codes))
            if effects.confirmed:
                await driver.execute(_CONFIRM, _ids(effects.confirmed))
            await store(driver, effects.answers)
            await end_tickets(driver, effects.ticket_ends)
            if has_waiting_list:
                await serve_waiting_list(driver, coupon_names)
            await driver.execute(UPDATE_PLAIN_UNTIL, {"coupon_names": coupon_names})
            await driver.execute("COMMIT", prepare=False)
    except (STORED_BY_ANOTHER, psycopg.errors.DeadlockDetected) as error:
        raise RestartTransactionError from error


def _units(effects: BatchEffects) -> dict[str, Any]:
    claims = [each.claim for each in effects.given]
    return {
        **_ids(claims),
        "user_ids": [claim.user_id for claim in claims],
        "times": [claim.claimed_at for claim in claims],
        "held_until": [claim.expires_at for claim in claims],
        "slots": [each.slot for each in effects.given],
    }


def _ids(claims: Sequence[Claim]) -> dict[str, Any]:
    return {
        "ids": [claim.id for claim in claims],
        "names": [claim.coupon_name for claim in claims],
        "units": len(claims),
    }


def _idempotency_key(attempt: Attempt) -> IdempotencyKey | None:
    return attempt.options.idempotency_key if attempt.options is not None else None
