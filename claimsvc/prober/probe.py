"""One probe: a claim on a coupon that is kept for probes, and its return."""

import secrets
import time
from dataclasses import dataclass
from enum import StrEnum

from claimsvc.client import (
    Cancelled,
    ClaimClient,
    ClaimClientError,
    Claimed,
    CouponCreated,
    CouponExists,
    ForbiddenError,
    Outcome,
    Refused,
    Retries,
    UnauthorizedError,
    UnavailableError,
    UnknownCoupon,
)

COUPON = "claimsvc-probe"
"""The coupon for probes, unless another is named."""
# Each probe returns its unit. Only a probe that is cut off in between keeps one.
_UNITS = 1_000_000


class Verdict(StrEnum):
    """What a probe found."""

    CLAIMED = "claimed"
    """The claim was made, and returned: claiming works."""
    FAILED = "failed"
    """No answer, or a failure of the service: users' claims most likely fail as well."""
    REFUSED = "refused"
    """The service answers, but not to this probe: its key or its coupon is wrong. Of users it tells nothing."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The result of one probe.

    Args:
        verdict: what it found.
        detail: what was answered, in words.
        seconds: from the request for the claim to its answer.
    """

    verdict: Verdict
    detail: str
    seconds: float


class Prober:
    """Probes one service.

    Every probe is a user of its own on a connection of its own, because a user may make only so many claims of a
    coupon. Nothing is retried: what a user's first attempt meets is what counts.

    Args:
        url: of the service or its load balancer.
        key: a key with the scope `claims:write`, where claiming needs one; with `coupons:write` the coupon is created
            if there is none.
        coupon: the coupon that is kept for probes.
        timeout_seconds: after which there is no answer.

    Raises:
        ValueError: the URL is invalid.
    """

    def __init__(self, url: str, *, key: str | None = None, coupon: str = COUPON, timeout_seconds: float = 5.0) -> None:
        self.url = url
        self._key = key
        self._coupon = coupon
        self._timeout_seconds = timeout_seconds
        self._client()  # raises if the URL is invalid

    async def probe(self) -> Probe:
        """Claim a unit and return it."""
        started_at = time.monotonic()
        try:
            async with self._client() as client:
                outcome, seconds = await self._claim(client)
                if isinstance(outcome, Claimed):
                    return await self._return(client, outcome.claim.id, seconds)
                return Probe(Verdict.REFUSED, self._why(outcome), seconds)
        except (UnauthorizedError, ForbiddenError) as error:
            return Probe(Verdict.REFUSED, f"the key is not accepted: {error}", time.monotonic() - started_at)
        except UnavailableError as error:
            answered = error.problem  # in its own words, if there was an answer
            detail = str(error) if answered is None else f"{answered.status} {answered.slug}: {answered.detail}"
            return Probe(Verdict.FAILED, detail, time.monotonic() - started_at)
        except ClaimClientError as error:
            return Probe(Verdict.FAILED, str(error), time.monotonic() - started_at)

    def _client(self) -> ClaimClient:
        return ClaimClient(
            self.url,
            token=self._key,
            deadline_seconds=self._timeout_seconds,
            silence_seconds=self._timeout_seconds,
            connections=1,
            retries=Retries(most=0),
        )

    async def _claim(self, client: ClaimClient) -> tuple[Outcome, float]:
        """Return the outcome of the claim, and how long it took (seconds)."""
        user = f"{COUPON}-{secrets.token_hex(8)}"
        started_at = time.monotonic()
        outcome: Outcome = await client.claim(user_id=user, coupon_name=self._coupon)
        if isinstance(outcome, UnknownCoupon) and self._key is not None:
            created = await client.create_coupon(
                self._coupon, _UNITS, metadata={"purpose": "`claimsvc probe` makes claims of it and returns them"}
            )
            if not isinstance(created, CouponCreated | CouponExists):
                return created, time.monotonic() - started_at
            started_at = time.monotonic()
            outcome = await client.claim(user_id=user, coupon_name=self._coupon)
        return outcome, time.monotonic() - started_at

    async def _return(self, client: ClaimClient, claim_id: str, seconds: float) -> Probe:
        cancelled = await client.cancel(claim_id, "probe")
        if isinstance(cancelled, Cancelled):
            return Probe(Verdict.CLAIMED, f"{self._coupon} was claimed and returned", seconds)
        return Probe(Verdict.REFUSED, f"the claim was made, but not returned: {self._why(cancelled)}", seconds)

    def _why(self, outcome: Outcome) -> str:
        if isinstance(outcome, UnknownCoupon):
            return (
                f"there is no coupon {self._coupon}: give a key with coupons:write, which creates it, or run"
                f" `claimsvc coupon create {self._coupon} --amount {_UNITS}`"
            )
        problem = str(outcome.problem) if isinstance(outcome, Refused) else type(outcome).__name__
        return f"{self._coupon} could not be claimed: {problem}"
