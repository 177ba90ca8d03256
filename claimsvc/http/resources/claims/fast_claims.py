"""Claims on the fast path: what `claim_coupon` does, by the same functions, without a request object and a task.

Plain calls lead from one step to the next. Only a repetition that waits for its first request has a task.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import hdrs, web

from claimsvc.domain import Caller, ClaimOutcome, IdempotencyKey, QuotaStanding
from claimsvc.http.framework import schemas
from claimsvc.http.framework.auth import TokenFound, caller_found, caller_soon, given_by, require_acting_for
from claimsvc.http.framework.bodies import decode_body, parse_body, validate_body
from claimsvc.http.framework.idempotency import IN_FLIGHT, begin_once, named_key
from claimsvc.http.framework.preferences import PREFER, PREFERENCE_APPLIED, RESPOND_ASYNC, parse
from claimsvc.http.framework.rate_limit import over_quota, policy_of, quota_headers, subjects_of
from claimsvc.http.framework.services import SERVICES
from claimsvc.http.framework.stored_answers import bounded_caller
from claimsvc.http.resources.claims.routes import CLAIM_ACCESS, CLAIM_PATH, begin_claim, claim_reply, is_queued
from claimsvc.http.server.addresses import address_named_in
from claimsvc.http.server.fast_path import FastPathClaim, FastRoute, Headers
from claimsvc.http.server.wire import IDEMPOTENCY_KEY
from claimsvc.ports import PendingOutcome


def fast_claims(app: web.Application) -> FastRoute:
    """The route of the fast path.

    Args:
        app: the application whose claims it makes.
    """
    services = app[SERVICES]
    strategy = services.strategy
    policy = "" if services.quotas is None else policy_of(services.quotas.quotas)

    def begin_guarded(claim: FastPathClaim, headers: Headers, raw: bytes, caller: Caller) -> None:
        sent = decode_body(raw)
        body = validate_body(schemas.ClaimCoupon, sent, given_by(caller))
        require_acting_for(caller, body.user_id)
        _GuardedClaim(app, policy, claim, headers, caller, sent, body).begin()

    def begin(claim: FastPathClaim, headers: Headers, raw: bytes, caller: Caller) -> None:
        if IDEMPOTENCY_KEY in headers or PREFER in headers:
            begin_guarded(claim, headers, raw, caller)
        else:
            body = parse_body(schemas.ClaimCoupon, raw)
            claim.wait_for_outcome(begin_claim(strategy, body), body.coupon_name or None)

    def identify(headers: Headers) -> "Caller | asyncio.Future[TokenFound] | None":
        return caller_soon(services, CLAIM_ACCESS, headers.get(hdrs.AUTHORIZATION, ""))

    def identified(found: TokenFound) -> Caller:
        return caller_found(services, CLAIM_ACCESS, found)

    if services.tokens is not None:
        return FastRoute(CLAIM_PATH, begin_guarded, claim_reply, identify, identified)
    return FastRoute(CLAIM_PATH, begin if services.quotas is None else begin_guarded, claim_reply)


class _GuardedClaim:
    """A claim for which its caller, quotas, an idempotency key or preferences matter.

    Args:
        app: the application.
        policy: its quotas, as of `policy_of`.
        claim: the claim to begin.
        headers: the request's headers.
        caller: the request's caller, who may act for the body's user.
        sent: the body as it was sent.
        body: the validated body.
    """

    __slots__ = ("_app", "_body", "_caller", "_claim", "_headers", "_policy", "_prefers_ticket", "_sent")

    def __init__(
        self,
        app: web.Application,
        policy: str,
        claim: FastPathClaim,
        headers: Headers,
        caller: Caller,
        sent: Mapping[str, Any],
        body: schemas.ClaimCoupon,
    ) -> None:
        self._app = app
        self._policy = policy
        self._claim = claim
        self._headers = headers
        self._caller = caller
        self._sent = sent
        self._body = body
        self._prefers_ticket = PREFER in headers and parse(headers.getall(PREFER)).respond_async

    def begin(self) -> None:
        """Count the request against the quotas, if there are any, and begin the claim."""
        quotas = self._app[SERVICES].quotas
        if quotas is None:
            self._begin()
        else:
            standings = quotas.begin(subjects_of(self._body.user_id, self._address()))
            self._claim.wait_for(standings, self._begin_within)

    def _begin_within(self, standings: Sequence[QuotaStanding]) -> None:
        headers = quota_headers(self._policy, standings)
        refusal = over_quota(standings, self._claim.request_id)
        if refusal is None:
            self._claim.added = headers
            self._begin()
        else:
            refusal.headers.update(headers)
            self._claim.refuse(refusal)

    def _begin(self) -> None:
        keys = self._headers.getall(IDEMPOTENCY_KEY, ())
        if not keys:
            self._wait_for_outcome(self._begin_claim(None), self._body.coupon_name or None)
            return
        key = named_key(
            keys,
            caller=self._caller,
            method=hdrs.METH_POST,
            path=CLAIM_PATH,
            sent=self._sent,
            body=self._body,
            request_id=self._claim.request_id,
        )
        answer = begin_once(self._app, key, bounded_caller(self._caller, self._address()), self._begin_claim)
        if answer is not None:
            self._wait_for_outcome(answer, self._body.coupon_name or None)
        else:
            repeated = PendingOutcome()
            repeated.follow(self._app[IN_FLIGHT].repeat(key))
            self._wait_for_outcome(repeated)

    def _wait_for_outcome(self, answer: PendingOutcome, coupon_name: str | None = None) -> None:
        if self._prefers_ticket:
            # Added first, so it is called before the claim replies.
            answer.add_done_callback(self._apply_preference)
        self._claim.wait_for_outcome(answer, coupon_name)

    def _apply_preference(self, answer: "asyncio.Future[ClaimOutcome]") -> None:
        if not answer.cancelled() and answer.exception() is None and is_queued(answer.result()):
            self._claim.added = {PREFERENCE_APPLIED: RESPOND_ASYNC, **(self._claim.added or {})}

    def _begin_claim(self, key: IdempotencyKey | None) -> PendingOutcome:
        claims, token = self._app[SERVICES].strategy, self._caller.attributes
        return begin_claim(claims, self._body, key, token, prefers_ticket=self._prefers_ticket)

    def _address(self) -> str | None:
        return address_named_in(self._claim.remote, self._headers, self._app[SERVICES].trusted_proxies)
