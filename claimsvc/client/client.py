"""The client: one method for each request, which returns one of its outcomes."""

import copy
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, Never, Self

from claimsvc.client.errors import UnknownCouponError
from claimsvc.client.outcomes import (
    Cancelled,
    CancelOutcome,
    Claim,
    Claimed,
    ClaimOutcome,
    Confirmed,
    ConfirmOutcome,
    Coupon,
    CouponCreated,
    CreateOutcome,
    HoldContinued,
    Queued,
    Refused,
    UnknownClaim,
    UnknownCoupon,
    UnknownTicket,
)
from claimsvc.client.reading import claim_of, coupon_of
from claimsvc.client.refusals import (
    OF_A_CLAIM,
    OF_A_COUPON,
    OF_A_TICKET,
    OF_CANCELLING,
    OF_CLAIMING,
    OF_CONFIRMING,
    OF_CREATING,
    refusal,
)
from claimsvc.client.requests import Requests, quoted
from claimsvc.client.retries import Retries
from claimsvc.client.sending import ClientResponse, Sender
from claimsvc.client.tickets import AsyncClaimOutcome, Ticket

_LARGEST_PAGE = 100  # the limit of the API
_ASYNC = {"Prefer": "respond-async"}


class WithoutType(Enum):
    """The type of `WITHOUT_TYPE`."""

    WITHOUT_TYPE = None


WITHOUT_TYPE: Final = WithoutType.WITHOUT_TYPE
"""Given as `coupon_type`, asks for a coupon without a type."""


class ClaimClient:
    """A client of one claim service. Several tasks may use it concurrently.

    Transient failures are retried for up to `deadline_seconds`. Retries are safe: every POST has an Idempotency-Key,
    which is kept over its retries. Expected refusals are returned as values (see `claimsvc.client.outcomes`); failures
    are raised as errors (see `claimsvc.client.errors`). Use it as an async context manager, or call `close()`.

    Args:
        url: of the service, such as `https://claims.example.com`.
        token: sent with every request as `Authorization: Bearer`; an admin key, or a user's token.
        deadline_seconds: longest wait for an answer, including pauses and retries.
        silence_seconds: how long the service may send nothing before the request is retried. Must be longer than the
            service's timeout of a claim (`CLAIMSVC_CLAIM_TIMEOUT_SECONDS`, 10 s).
        connections: most concurrent connections; further requests wait for one.
        retries: pauses between attempts, and their number.

    Raises:
        ValueError: the URL is invalid.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        deadline_seconds: float = 30.0,
        silence_seconds: float = 12.0,
        connections: int = 100,
        retries: Retries | None = None,
    ) -> None:
        sender = Sender(
            url,
            retries=retries or Retries(),
            deadline_seconds=deadline_seconds,
            silence_seconds=silence_seconds,
            connections=connections,
        )
        self._requests = Requests(sender, token)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Requests in progress fail. Closing again has no effect."""
        await self._requests.close()

    def with_token(self, token: str | None) -> Self:
        """Return a client with another token. Both share their connections and are closed together."""
        other = copy.copy(self)
        other._requests = self._requests.with_token(token)
        return other

    async def claim(
        self,
        *unnamed: Never,
        user_id: str | None = None,
        coupon_name: str | None = None,
        coupon_type: str | WithoutType | None = None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        hold_seconds: int | None = None,
        key: str | None = None,
        request_id: str | None = None,
    ) -> ClaimOutcome:
        """Claim one unit of a coupon for a user. If the coupon has a queue, the claim waits there: `Queued`.

        Args:
            unnamed: nothing. A user and a coupon are both text, so swapping them would not be noticed.
            user_id: the user who gets the unit. Required.
            coupon_name: the coupon; None for the oldest claimable coupon of `coupon_type`.
            coupon_type: a type, or `WITHOUT_TYPE`, if `coupon_name` is None; otherwise None.
            attributes: of the user, for the coupon's rules.
            hold_seconds: hold the unit for this time instead of claiming it; confirm it with `confirm`.
            key: the Idempotency-Key, 1 to 255 visible ASCII characters except `"` and `\\`; a new one by default. Pass
                your own to repeat a request after your program crashed: for 24 h the same request gets the same answer.
            request_id: the `X-Request-ID`, to trace this request with another; a new one by default.

        Raises:
            ClaimClientError: see `claimsvc.client.errors`.
            TypeError: an argument has no name, or `user_id` is missing.
            ValueError: the key has characters that are not allowed, or too many; or not exactly one of `coupon_name`
                and `coupon_type` is given.
        """
        body = _claim_of(unnamed, user_id, coupon_name, coupon_type, attributes, hold_seconds)
        return self._claimed(await self._requests.post("/api/coupons/claim", body, key, request_id))

    async def claim_async(
        self,
        *unnamed: Never,
        user_id: str | None = None,
        coupon_name: str | None = None,
        coupon_type: str | WithoutType | None = None,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        hold_seconds: int | None = None,
        key: str | None = None,
        request_id: str | None = None,
    ) -> AsyncClaimOutcome:
        """Let a claim wait in the coupon's queue, and return its `Ticket` at once, which is then waited for.

        A claim that would be refused at once is refused. A user who waits already gets the same ticket, at its place.

        Args:
            unnamed, user_id, coupon_name, coupon_type, attributes, hold_seconds, key, request_id: see `claim`.

        Raises:
            ClaimClientError, TypeError, ValueError: see `claim`.
        """
        body = _claim_of(unnamed, user_id, coupon_name, coupon_type, attributes, hold_seconds)
        outcome = self._claimed(await self._requests.post("/api/coupons/claim", body, key, request_id, _ASYNC))
        return outcome.ticket if isinstance(outcome, Queued) else outcome

    async def ticket(self, ticket_id: str, *, request_id: str | None = None) -> Ticket | UnknownTicket | Refused:
        """Read a ticket, such as one that an earlier run of the program has got."""
        answer = await self._requests.send("GET", f"/api/tickets/{quoted(ticket_id)}", request_id)
        return Ticket(self._requests, answer) if answer.status == 200 else refusal(answer, OF_A_TICKET)

    def _claimed(self, answer: ClientResponse) -> ClaimOutcome:
        match answer.status:
            case 201:
                return Claimed(answer.read(claim_of), **answer.about())
            case 200:
                return HoldContinued(answer.read(claim_of), **answer.about())
            case 202:
                return Queued(Ticket(self._requests, answer), **answer.about())
        return refusal(answer, OF_CLAIMING)

    async def confirm(self, claim_id: str, *, key: str | None = None, request_id: str | None = None) -> ConfirmOutcome:
        """Confirm a held claim. Confirming again has no effect.

        Args:
            claim_id: the claim.
            key: see `claim`.
            request_id: see `claim`.

        Raises:
            ClaimClientError: see `claimsvc.client.errors`.
            ValueError: see `claim`.
        """
        answer = await self._requests.post(f"/api/claims/{quoted(claim_id)}/confirm", None, key, request_id)
        if answer.status == 200:
            return Confirmed(answer.read(claim_of), **answer.about())
        return refusal(answer, OF_CONFIRMING)

    async def cancel(self, claim_id: str, reason: str | None = None, *, request_id: str | None = None) -> CancelOutcome:
        """Cancel a claim, held or confirmed, and return its unit to stock. Cancelling again has no effect.

        Args:
            claim_id: the claim.
            reason: one line, which the audit records; None for no reason.
            request_id: see `claim`.

        Raises:
            ClaimClientError: see `claimsvc.client.errors`.
        """
        # In the body and not in the query, which proxies may log.
        body = {"reason": reason} if reason is not None else None
        answer = await self._requests.send("DELETE", f"/api/claims/{quoted(claim_id)}", request_id, body=body)
        if answer.status == 200:
            return Cancelled(answer.read(claim_of), **answer.about())
        return refusal(answer, OF_CANCELLING)

    async def claim_by_id(self, claim_id: str, *, request_id: str | None = None) -> Claim | UnknownClaim | Refused:
        """Read a claim."""
        answer = await self._requests.send("GET", f"/api/claims/{quoted(claim_id)}", request_id)
        return answer.read(claim_of) if answer.status == 200 else refusal(answer, OF_A_CLAIM)

    async def claims(
        self, coupon_name: str, *, page_size: int = _LARGEST_PAGE, request_id: str | None = None
    ) -> AsyncGenerator[Claim, None]:
        """Iterate over all claims of a coupon, oldest first. Pages are read as needed.

        Args:
            coupon_name: the coupon.
            page_size: claims per request, from 1 to 100.
            request_id: see `claim`.

        Raises:
            UnknownCouponError: there is no such coupon.
            ClaimClientError: see `claimsvc.client.errors`.
        """
        path = f"/api/coupons/{quoted(coupon_name)}/claims"
        async for page in self._requests.pages(path, {"limit": page_size}, request_id):
            if isinstance(page, UnknownCoupon):
                raise UnknownCouponError(coupon_name)
            for claim in page:
                yield claim

    async def claims_of_user(
        self,
        user_id: str | None = None,
        *,
        states: Iterable[str] = (),
        page_size: int = _LARGEST_PAGE,
        request_id: str | None = None,
    ) -> AsyncGenerator[Claim, None]:
        """Iterate over a user's claims of all coupons, newest first. Pages are read as needed.

        `more` of each claim has the `type` and the `benefit` of its coupon.

        Args:
            user_id: the user; None for the user of the client's token.
            states: only claims in one of these states: `active`, `held`, `cancelled`, `expired`; all by default.
            page_size: claims per request, from 1 to 100.
            request_id: see `claim`.

        Raises:
            ProblemError: the token is another user's.
            ClaimClientError: see `claimsvc.client.errors`.
            TypeError: `states` is a text, whose letters would be the states.
        """
        if isinstance(states, str):
            raise TypeError('states must be several: claims_of_user(states=["active"])')
        query = {"limit": page_size} | ({"state": state} if (state := ",".join(states)) else {})
        path = f"/api/users/{quoted(user_id) if user_id is not None else 'me'}/claims"
        async for page in self._requests.pages(path, query, request_id):
            if not isinstance(page, UnknownCoupon):
                for claim in page:
                    yield claim

    async def coupon(self, name: str, *, request_id: str | None = None) -> Coupon | UnknownCoupon | Refused:
        """Read a coupon, with its first claimants."""
        answer = await self._requests.send("GET", f"/api/coupons/{quoted(name)}", request_id)
        return answer.read(coupon_of) if answer.status == 200 else refusal(answer, OF_A_COUPON)

    async def create_coupon(
        self,
        name: str,
        amount: int,
        *,
        strategy: str | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        paused: bool | None = None,
        per_user_limit: int | None = None,
        claims_per_user: int | None = None,
        coupon_type: str | None = None,
        benefit: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        rules: Mapping[str, Any] | None = None,
        queue: Mapping[str, Any] | None = None,
        waiting_list: Mapping[str, Any] | bool | None = None,
        key: str | None = None,
        request_id: str | None = None,
    ) -> CreateOutcome:
        """Create a coupon. The client's token must be an admin key.

        Arguments that are None get the service's defaults.

        Args:
            name: 1 to 255 characters of `A-Z a-z 0-9 . _ -`; single blanks may stand between them.
            amount: number of units.
            strategy: `redlock`, `row_lock` or `counter`.
            starts_at, ends_at: when it can be claimed; with an offset from UTC.
            paused: create it paused, so that it cannot be claimed yet.
            per_user_limit: most units that one user may have at a time.
            claims_per_user: most claims that one user may make in all, ended ones included.
            queue: lets its claims wait: `{"rate_per_second": 10, "concurrency": 5, "max_wait_seconds": 10,
                "max_length": 100}`.
            waiting_list: lets claims wait for units that come back once it is sold out, each held for as many seconds:
                `{"hold_seconds": 600}`, or True for these.
            coupon_type: groups coupons.
            benefit: what the coupon is worth, such as `{"percent_off": 15}`.
            metadata: any data of yours.
            rules: who may claim it: `{"attributes": [...], "holds": [...], "holds_not": [...]}`.
            key, request_id: see `claim`.

        Raises:
            UnauthorizedError: the token is not an admin key.
            ClaimClientError: see `claimsvc.client.errors`.
            ValueError: see `claim`.
        """
        optional = {
            "strategy": strategy,
            "starts_at": starts_at.isoformat() if starts_at is not None else None,
            "ends_at": ends_at.isoformat() if ends_at is not None else None,
            "paused": paused,
            "per_user_limit": per_user_limit,
            "claims_per_user": claims_per_user,
            "type": coupon_type,
            "benefit": benefit,
            "metadata": metadata,
            "rules": rules,
            "queue": queue,
            "waiting_list": waiting_list or None,
        }
        given = {member: value for member, value in optional.items() if value is not None}
        answer = await self._requests.post("/api/coupons", {"name": name, "amount": amount, **given}, key, request_id)
        if answer.status == 201:
            return CouponCreated(answer.read(coupon_of), **answer.about())
        return refusal(answer, OF_CREATING)


def _claim_of(
    unnamed: tuple[Never, ...],
    user_id: str | None,
    coupon_name: str | None,
    coupon_type: str | WithoutType | None,
    attributes: Mapping[str, str | int | float | bool] | None,
    hold_seconds: int | None,
) -> dict[str, Any]:
    """The body of a claim; raises as `ClaimClient.claim`."""
    if unnamed or user_id is None:
        raise TypeError('claim() takes named arguments: claim(user_id="user-1", coupon_name="summer-sale")')
    if (coupon_name is None) is (coupon_type is None):
        raise ValueError('give either coupon_name, such as "summer-sale", or coupon_type: a type, or WITHOUT_TYPE')
    optional = {"coupon_name": coupon_name, "attributes": attributes, "hold_seconds": hold_seconds}
    body = {"user_id": user_id, **{member: value for member, value in optional.items() if value is not None}}
    if coupon_type is not None:
        body["type"] = coupon_type.value if isinstance(coupon_type, WithoutType) else coupon_type
    return body
