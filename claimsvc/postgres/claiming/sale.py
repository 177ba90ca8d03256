"""The sale: one statement gives every claim of a batch a unit, on coupons with terms and to claims with options.

The full path decides claim by claim, by facts that it reads first. A hot coupon's batches mostly get all that they ask
for. So the coupon's row is locked, and the next statement, whose snapshot is newer than the lock, gives all units with
their codes, holds and stored answers, or does nothing. Whatever it cannot do, the full path does.

What a claim states about its user is compared with the coupon's rules here. The terms are those of an earlier batch:
`campaigns.xmin` tells the version of the row, and the statement gives nothing under another one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any

import psycopg

from claimsvc.domain import (
    Attempt,
    Claim,
    Claimed,
    ClaimOptions,
    ClaimOutcome,
    ClaimState,
    EligibilityRules,
    IdempotencyKey,
    NotEligible,
)
from claimsvc.domain.admission import CouponFacts
from claimsvc.ports import AllClaimed, HandedBatch
from claimsvc.postgres.claiming.fence import LOCK_COUPONS, handed_outcomes
from claimsvc.postgres.claiming.sale_statement import Shape, selling
from claimsvc.postgres.code_rows import terms_of
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.transactions import RestartTransactionError

_NO_OPTIONS = ClaimOptions()
_NO_KEY = IdempotencyKey("", "", b"", "")

Sold = tuple[Sequence[ClaimOutcome], Sequence[AllClaimed | Sequence[ClaimOutcome] | None]]
"""The outcomes of the attempts, and of each batch."""


class NotForAllError(RestartTransactionError):
    """Not all of the claims can get a unit; nothing was written."""


@dataclass(slots=True, eq=False)
class SoldCodes:
    """Where the search for free codes begins. A sale tells it to the next.

    Args:
        up_to: the place up to which no code is free, as text; None if it is not known.
        while_ended: how many of the coupon's claims had ended then, as text: when another ends, its code may be free.
    """

    # As text, because a number's type depends on its size, and each type would have a prepared statement of its own.
    up_to: str | None = None
    while_ended: str | None = None


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
        has_lists: whether it has an allow list or a deny list.
        rules: about attributes; None without any.
        sold_codes: changes with each sale.
    """

    version: str | None
    per_user_limit: int
    most_claims: int
    has_slots: bool
    has_codes: bool
    types: frozenset[str | None]
    has_lists: bool
    rules: EligibilityRules | None
    sold_codes: SoldCodes = field(default_factory=SoldCodes, compare=False)

    @classmethod
    def of(cls, coupon: CouponFacts) -> "Terms | None":
        """Return the terms of a coupon; None if they depend on more than a sale looks at."""
        campaign = coupon.campaign
        rules = campaign.rules
        if rules is not None and (rules.holds or rules.holds_not):
            return None
        return cls(
            coupon.version,
            campaign.per_user_limit,
            campaign.most_claims,
            campaign.per_user_limit > 1 or coupon.had_higher_limit,
            coupon.has_codes,
            frozenset(coupon.counted_types) if coupon.has_codes else frozenset(),
            campaign.has_allow_list or campaign.has_deny_list,
            rules,
        )


async def sell(
    driver: Driver, coupon_name: str, terms: Terms, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
) -> Sold:
    """Give a unit to each of these attempts and batches of one coupon, and commit, in one round trip.

    Who does not meet the rules gets none, and is told so.

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
    if not terms.has_codes:
        return claims.outcomes(row[0], None, None)
    sold_at, _, codes, terms_of_codes, last_place, ended_count = row
    if ended_count is not None:
        terms.sold_codes.up_to, terms.sold_codes.while_ended = str(last_place), str(ended_count)
    return claims.outcomes(sold_at, codes.split("\n"), terms_of_codes)


class _Claims:
    """The claims of a sale: those of the attempts, and after them those of the handed batches.

    Raises:
        NotForAllError: the claims cannot all get a unit, even without those that are not eligible.
    """

    def __init__(
        self, coupon_name: str, terms: Terms, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]
    ) -> None:
        self._coupon_name = coupon_name
        self._terms = terms
        self._attempts = attempts
        self._batches = batches
        self._options = [each.options for each in attempts]
        for batch in batches:
            self._options += batch.options or [None] * batch.size
        self._units = len(self._options)
        claim_ids = [each.claim_id for each in attempts]
        user_ids = [each.user_id for each in attempts]
        for batch in batches:
            claim_ids.append(batch.claim_ids)
            user_ids.append(batch.user_ids)
        self._claim_ids = "\n".join(claim_ids)
        self._user_ids = _lines(user_ids, self._units)
        self._refused = {} if terms.rules is None else _refused(terms.rules, self._options)
        self._refused_users = ""
        if self._refused:
            self._leave_out_refused()
        self._has_holds = self._has_keys = False
        for options in self._options:
            if options is not None:
                self._has_holds = self._has_holds or options.hold_seconds is not None
                self._has_keys = self._has_keys or options.idempotency_key is not None
        # A user's second attempt continues the hold of the first.
        if terms.has_slots and self._has_holds and len(set(self._user_ids.split("\n"))) < self._units:
            raise NotForAllError

    def _leave_out_refused(self) -> None:
        """Leave out who is not eligible. Whether such a user has a claim, which is told first, the statement finds."""
        users = self._user_ids.split("\n")
        refused = {users[place] for place in self._refused}
        kept = [place for place in range(self._units) if place not in self._refused]
        # One may get a unit by another attempt of the batch, and may be refused by a list, too.
        if not kept or self._terms.has_lists or not refused.isdisjoint([users[place] for place in kept]):
            raise NotForAllError
        ids = self._claim_ids.split("\n")
        self._claim_ids = "\n".join([ids[place] for place in kept])
        self._user_ids = "\n".join([users[place] for place in kept])
        self._options = [self._options[place] for place in kept]
        self._refused_users = "\n".join(refused)
        self._units = len(kept)

    @property
    def shape(self) -> Shape:
        return Shape(
            codes=self._terms.has_codes,
            slots=self._terms.has_slots,
            holds=self._has_holds,
            keys=self._has_keys,
            fence=bool(self._batches),
            refusals=bool(self._refused),
            lists=self._terms.has_lists,
        )

    def parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {
            "coupon_name": self._coupon_name,
            "units": self._units,
            "version": self._terms.version,
            "limit": min(self._terms.per_user_limit, self._terms.most_claims),
            "most_claims": self._terms.most_claims,
            "claim_id": self._claim_ids,
            "user_id": self._user_ids,
        }
        if self._has_holds:
            parameters["hold_seconds"] = "\n".join([_seconds(options) for options in self._options])
        if self._terms.has_codes:
            sold = self._terms.sold_codes
            parameters |= {"sold_up_to": sold.up_to, "sold_while_ended": sold.while_ended}
        if self._refused:
            parameters["refused"] = self._refused_users
        if self._has_keys:
            parameters |= self._keys()
        if self._batches:
            parameters["batch_ids"] = [batch.id for batch in self._batches]
            parameters["first_batch"] = min(batch.id for batch in self._batches)
        return parameters

    def _keys(self) -> dict[str, str]:
        keys: list[str] = []
        callers: list[str] = []
        request_ids: list[str] = []
        fingerprints: list[str] = []
        for options in self._options:
            key = (options.idempotency_key if options is not None else None) or _NO_KEY
            keys.append(key.key)
            callers.append(key.caller)
            request_ids.append(key.request_id)
            fingerprints.append(key.fingerprint.hex())
        lines = {"key": keys, "caller": callers, "request_id": request_ids, "fingerprint": fingerprints}
        return {name: _lines(texts, self._units) for name, texts in lines.items()}

    def outcomes(self, sold_at: datetime, codes: Iterable[str] | None, terms_of_codes: Iterable[Any] | None) -> Sold:
        if codes is None and not self._has_holds and not self._refused:
            own = [Claimed(_claim(attempt, sold_at)) for attempt in self._attempts]
            return own, [AllClaimed(sold_at)] * len(self._batches)
        everyone = [*self._attempts, *(attempt for batch in self._batches for attempt in batch.attempts)]
        given = zip(codes or _NONE, terms_of_codes or _NONE, strict=False)
        outcomes: list[ClaimOutcome] = [
            self._refused[place] if place in self._refused else Claimed(_claim_with(attempt, sold_at, *next(given)))
            for place, attempt in enumerate(everyone)
        ]
        own_count = len(self._attempts)
        batches = self._batches
        return outcomes[:own_count], handed_outcomes(outcomes[own_count:], batches, {each.id for each in batches})


_NONE: Iterable[None] = repeat(None)


def _refused(rules: EligibilityRules, options: Sequence[ClaimOptions | None]) -> dict[int, NotEligible]:
    """Return the refusals of who does not meet the rules, by place.

    Raises:
        NotForAllError: one of them has a key, under which an answer may be stored.
    """
    refused = {}
    for place, each in enumerate(options):
        given = each or _NO_OPTIONS
        if rules.admit_attributes(given.attributes, given.token):  # terms have no other rules
            continue
        if given.idempotency_key is not None:
            raise NotForAllError
        refused[place] = NotEligible(tuple(rules.broken(given.attributes, given.token, _holds_none)))
    return refused


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
