"""Claiming by the fast path: the same parts as the route of claiming, without a request object."""

from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.http.resources.claims.routes import CLAIM_PATH, begin_claim, claim_reply
from claimsvc.http.server.fast_path import FastRoute
from claimsvc.ports import AnyClaims, PendingOutcome


def fast_claims(claims: AnyClaims) -> FastRoute:
    """The fast path's route of claiming.

    Args:
        claims: where claims are made.
    """

    def begin(body: bytes) -> tuple[PendingOutcome, str | None]:
        asked = parse_body(ClaimCoupon, body)
        return begin_claim(claims, asked), asked.coupon_name or None

    return FastRoute(CLAIM_PATH, begin, claim_reply)
