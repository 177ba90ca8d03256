"""The requests of a plan: a few bytes put together for each, so that almost nothing is left to do while measuring."""

import random
import secrets
from collections.abc import Callable, Iterator
from itertools import accumulate

import orjson

from tests.bench.plan import Plan
from tests.bench.tokens import tokens_of

# How users are numbered: n times this, modulo 10^12. They are all different, because the factor has no divisor in
# common with 10; and they land all over an index, as real ones do. `growth` numbers those that it invents likewise.
USER_FACTOR = 654_435_761
USER_MODULUS = 10**12
USER_DIGITS = 12

_PICKS = 1 << 16  # how many picks of a coupon are drawn beforehand, and then repeated


def requests(plan: Plan, numbers: Iterator[int]) -> Callable[[], bytes]:
    """What makes the next request."""
    start = f"POST {plan.path} HTTP/1.1\r\n".encode()
    rests = [_rest(plan, coupon) for coupon in plan.coupons]
    if plan.users:
        return _in_turn(plan, start, rests, numbers)
    if len(rests) > 1:
        weights = list(accumulate((rank + 1) ** -plan.skew for rank in range(len(rests))))
        rests = random.Random(0).choices(rests, cum_weights=weights, k=_PICKS)
    picks = len(rests)
    if plan.idempotency_keys or plan.token_key or plan.claims_per_user > 1:
        header = _header(plan)
        each = plan.claims_per_user

        def next_special() -> bytes:
            number = next(numbers)
            user = number // each
            return b'%b%b%b%012d"}' % (start, header(number, user), rests[number % picks], _user_id(user))

        return next_special
    heads = [start + rest for rest in rests]

    def next_plain() -> bytes:
        number = next(numbers)
        return b'%b%012d"}' % (heads[number % picks], number * USER_FACTOR % USER_MODULUS)

    return next_plain


def _in_turn(plan: Plan, start: bytes, rests: list[bytes], numbers: Iterator[int]) -> Callable[[], bytes]:
    """All users claim the first coupon, then the second."""
    header = _header(plan)
    users, coupons = plan.users, len(rests)

    def next_request() -> bytes:
        number = next(numbers)
        user = number % users
        return b'%b%b%b%012d"}' % (start, header(number, user), rests[number // users % coupons], _user_id(user))

    return next_request


def _rest(plan: Plan, coupon: str) -> bytes:
    """A request from its second line to the user, whose id and the end of the body follow."""
    members = b"".join(b"%b:%b," % (orjson.dumps(name), orjson.dumps(value)) for name, value in plan.members.items())
    body = b'{"coupon_name":"%b",%b"user_id":"' % (coupon.encode(), members)
    length = len(body) + USER_DIGITS + len('"}')
    return b"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


def _user_id(user: int) -> int:
    return user * USER_FACTOR % USER_MODULUS


def _header(plan: Plan) -> Callable[[int, int], bytes]:
    """What makes the header that is each request's own, of the numbers of the request and of its user."""
    if plan.token_key:
        first = plan.first_user if not plan.users else 0
        count = plan.users or plan.token_count
        tokens = tokens_of(plan.token_key, [f"{_user_id(first + n):0{USER_DIGITS}}" for n in range(count)])
        headers = [b"Authorization: Bearer %b\r\n" % token.encode() for token in tokens]
        # A load that is faster than was foreseen repeats users, which shows in the outcomes.
        return lambda _, user: headers[(user - first) % count]
    if plan.idempotency_keys:
        # As long as a UUID, and never used before.
        nonce = secrets.token_hex(10).encode()
        return lambda number, _: b"Idempotency-Key: %b%012d\r\n" % (nonce, number)
    return lambda _, __: b""
