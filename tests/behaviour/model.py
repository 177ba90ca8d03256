"""The whole service as a small model: what it must answer, whatever was asked before."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body; `slug` is the last part of a problem's type."""

    status: int
    body: Any

    @property
    def slug(self) -> str:
        return str(self.body.get("type", "")).rpartition("/")[2] if isinstance(self.body, dict) else ""


@dataclass
class Coupon:
    name: str
    amount: int
    strategy: str
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The claim of each user who holds one, as its 201 told it."""

    @property
    def remaining(self) -> int:
        return self.amount - len(self.claims)

    def in_order(self) -> list[dict[str, Any]]:
        return sorted(self.claims.values(), key=lambda claim: (claim["claimed_at"], claim["id"]))


class Model:
    """Coupons and claims. Its checks raise `AssertionError` where an answer is none of those that are permissible."""

    def __init__(self) -> None:
        self.coupons: dict[str, Coupon] = {}

    def created(self, name: str, amount: int, strategy: str, answer: Answer) -> None:
        if name in self.coupons:
            assert (answer.status, answer.slug) == (409, "coupon-exists"), answer
            return
        assert answer.status == 201, answer
        assert answer.body["remaining_amount"] == answer.body["amount"] == amount
        assert answer.body["strategy"] == strategy
        self.coupons[name] = Coupon(name, amount, strategy)

    def claimed(self, asked: Sequence[tuple[str, str]], answers: Sequence[Answer]) -> None:
        """Claims (coupon and user) that were made at the same time, in any order: who wins is open, how many is not."""
        by_coupon: dict[str, dict[str, list[Answer]]] = defaultdict(lambda: defaultdict(list))
        for (name, user), answer in zip(asked, answers, strict=True):
            by_coupon[name][user].append(answer)
        for name, by_user in by_coupon.items():
            if name not in self.coupons:
                for answers_of_one in by_user.values():
                    assert all((each.status, each.slug) == (404, "unknown-coupon") for each in answers_of_one), by_user
                continue
            coupon = self.coupons[name]
            wanting = [user for user in by_user if user not in coupon.claims]
            expected = min(coupon.remaining, len(wanting))
            winners = [user for user in wanting if self._settle(coupon, user, by_user[user])]
            for user in by_user.keys() - set(wanting):
                self._told_again(coupon, user, by_user[user])
            assert len(winners) == expected, f"{len(winners)} of {expected} units of {coupon} were given: {by_user}"

    def _settle(self, coupon: Coupon, user: str, answers: Sequence[Answer]) -> bool:
        """One of a user's simultaneous claims wins and the others are told so; or all of them are sold out."""
        outcomes = Counter((answer.status, answer.slug) for answer in answers)
        if outcomes[(201, "")] == 0:
            assert outcomes == {(409, "sold-out"): len(answers)}, outcomes
            return False
        assert outcomes[(201, "")] == 1, outcomes
        [claim] = [answer.body for answer in answers if answer.status == 201]
        assert (claim["coupon_name"], claim["user_id"], claim["state"]) == (coupon.name, user, "active")
        coupon.claims[user] = claim
        self._told_again(coupon, user, [answer for answer in answers if answer.status != 201])
        return True

    def _told_again(self, coupon: Coupon, user: str, answers: Sequence[Answer]) -> None:
        for answer in answers:
            assert (answer.status, answer.slug) == (409, "already-claimed"), answer
            assert answer.body["claim"] == coupon.claims[user]

    def read(self, name: str, answer: Answer) -> None:
        if name not in self.coupons:
            assert (answer.status, answer.slug) == (404, "unknown-coupon"), answer
            return
        coupon = self.coupons[name]
        assert answer.status == 200
        assert (answer.body["amount"], answer.body["remaining_amount"]) == (coupon.amount, coupon.remaining)
        assert answer.body["claimed_by"] == [claim["user_id"] for claim in coupon.in_order()]

    def listed_claims(self, name: str, claims: Sequence[Any] | None) -> None:
        """All pages of a coupon's claims together; None: it was called unknown."""
        assert claims == (self.coupons[name].in_order() if name in self.coupons else None)

    def listed_coupons(self, search: str, coupons: Sequence[Any]) -> None:
        """All pages of a search together."""
        expected = sorted(name for name in self.coupons if search.lower() in name.lower())
        assert [coupon["name"] for coupon in coupons] == expected
        for coupon in coupons:
            known = self.coupons[coupon["name"]]
            assert (coupon["remaining_amount"], coupon["strategy"]) == (known.remaining, known.strategy)
