"""The fast path of claiming: the functions of the ordinary route, without a request object."""

from claimsvc.http.framework.bodies import parse_body
from claimsvc.http.framework.schemas import ClaimCoupon
from claimsvc.http.resources.claims.routes import CLAIM_PATH, begin_claim, claim_reply
from claimsvc.http.server.fast_path import FastRoute
from claimsvc.ports import AnyClaims, PendingOutcome


def fast_claims(claims: AnyClaims) -> FastRoute:
    """The route of the fast path.

    Args:
        claims: makes claims.
    """

    def begin(body: bytes) -> tuple[PendingOutcome, str | None]:
        claim = parse_body(ClaimCoupon, body)
        return begin_claim(claims, claim), claim.coupon_name or None

    return FastRoute(CLAIM_PATH, begin, claim_reply)
