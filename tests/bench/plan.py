"""What the load generator is told, and what it tells back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Plan:
    """One measurement.

    Args:
        ports: the instances on 127.0.0.1; connections are dealt to them in turn.
        connections: how many, each with one request under way.
        coupons: names, of equal length by preference, so that all requests are of equal size.
        skew: 0 claims each coupon equally often; s > 0 claims the k-th 1/k^s as often as the first (Zipf).
        first_user: the number of the first user; every request has the next.
        expected: the outcome that counts as an answer, such as `201` or `409 sold-out`.
        warm_up_seconds, seconds: how long claims are made before, and while, it is measured.
        warm_up_answers: the warm-up lasts until there are so many, too.
        watched: process ids by group, whose CPU time is measured over the same time.
        path: what is posted to.
        members: what the body of each claim has besides coupon and user.
        idempotency_keys: whether each request has an `Idempotency-Key` of its own.
        claims_per_user: how many requests in a row have the same user.
        users: how many there are; when all have claimed the first coupon, they claim the second, and so on. 0: every
            user is new, and coupons are claimed side by side.
        token_key: signs users' tokens, before anything is measured: a private key in PEM, or nothing for no tokens.
        token_count: how many users have a token, if `users` does not say it.
    """

    ports: Sequence[int]
    connections: int
    coupons: Sequence[str]
    expected: str
    warm_up_seconds: float
    seconds: float
    skew: float = 0.0
    first_user: int = 0
    warm_up_answers: int = 0
    watched: Mapping[str, Sequence[int]] = field(default_factory=dict)
    path: str = "/api/coupons/claim"
    members: Mapping[str, object] = field(default_factory=dict)
    idempotency_keys: bool = False
    claims_per_user: int = 1
    users: int = 0
    token_key: str = ""
    token_count: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen.

    Args:
        seconds: how long it was measured.
        answered: expected answers that came in that time, by instance.
        outcomes: all answers, those of the warm-up and the last ones included.
        p50_ms, p99_ms, max_ms: latency of all requests that were under way at some moment of that time, whatever and
            whenever the answer: one that is starved for longer than that cannot hide.
        cpu_seconds: CPU time used in that time, by group; `client` is this process.
        users: how many were used.
        pictures_per_second: what each viewer of the console had, if there were any.
    """

    seconds: float
    answered: list[int]
    outcomes: dict[str, int]
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_seconds: dict[str, float]
    users: int
    pictures_per_second: float = 0.0
