"""What claims can use beyond the plain ones: each is measured on one hot coupon, and compared with plain."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """What a contestant's coupons and claims have.

    Args:
        coupon: members of the coupon.
        claim: members of each claim.
        idempotency_keys: whether each claim has an `Idempotency-Key` of its own.
        claims_per_user: how many claims in a row each user makes.
        codes: whether each unit has a code.
        expected: the outcome that counts.
        tokens: whether users have tokens, and whether the service has verified each of them before (`seen`).
    """

    coupon: Mapping[str, Any] = field(default_factory=dict)
    claim: Mapping[str, Any] = field(default_factory=dict)
    idempotency_keys: bool = False
    claims_per_user: int = 1
    codes: bool = False
    expected: str = "201"
    tokens: Literal["none", "seen", "new"] = "none"


PLAIN = Feature()
KEYED = Feature(idempotency_keys=True)
CODES = Feature(codes=True)
# Of what a claim says itself: the usual rule, which needs nothing else from the database.
RULES = Feature(
    coupon={"rules": {"attributes": [{"name": "country", "one_of": ["KR", "JP"]}]}},
    claim={"attributes": {"country": "KR"}},
)
TWO_PER_USER = Feature(coupon={"per_user_limit": 2}, claims_per_user=2)
HOLD = Feature(claim={"hold_seconds": 600})
# Hardly any is started: it is joining that is measured.
QUEUE = Feature(
    coupon={"queue": {"rate_per_second": 1, "concurrency": 1, "max_wait_seconds": 86_400, "max_length": 1_000_000}},
    expected="202",
)
TOKEN_SEEN = Feature(tokens="seen")
TOKEN_NEW = Feature(tokens="new")
