"""Users who wait: they join queues, look at their tickets from whatever instance, and now and then leave."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from tests.support.history import Invocation

if TYPE_CHECKING:
    from tests.support.load import Client

_ENDS = ("claimed", "refused", "expired", "left", "dead")
# So many tickets are looked at, and so many of those that have ended.
_OPEN_KEPT = 4096
_ENDED_KEPT = 512
_RECENT = 256

QUEUE: Mapping[str, int] = MappingProxyType(
    {"rate_per_second": 200, "concurrency": 16, "max_wait_seconds": 3600, "max_length": 500}
)
"""A queue from which nobody expires, so that every ticket shows whether it was lost."""


@dataclass(frozen=True, slots=True)
class QueuePlan:
    """What those who wait do.

    Args:
        coupons: those with queues.
        polls: looks at a ticket for each request that joins.
        leaves: the part of all requests that leaves a queue.
        repeats: the part of joins by a user who has joined that queue before.
        asks_again: how often a user asks again after an answer that decided nothing.
        pause_seconds: how long it waits before that.
    """

    coupons: Sequence[str]
    polls: float = 0.5
    leaves: float = 0.03
    repeats: float = 0.03
    asks_again: int = 200
    pause_seconds: float = 0.1


class _Bag:
    """So many tickets at most, of which any can be drawn: with each its coupon and its user."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: list[tuple[str, str, str]] = []
        self._places: dict[str, int] = {}

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, known: tuple[str, str, str]) -> None:
        if known[2] in self._places:
            return
        if len(self._all) == self._most:
            self.discard(self._all[hash(known) % self._most][2])
        self._places[known[2]] = len(self._all)
        self._all.append(known)

    def discard(self, ticket: str) -> None:
        place = self._places.pop(ticket, None)
        if place is not None:
            last = self._all.pop()
            if last[2] != ticket:
                self._all[place] = last
                self._places[last[2]] = place

    def draw(self, rng: random.Random) -> tuple[str, str, str]:
        return rng.choice(self._all)


class Waiters:
    """What all clients of a load know of tickets together: whoever is free looks at any of them.

    Args:
        plan: what they do.
        name: what the users' names begin with.
    """

    def __init__(self, plan: QueuePlan, name: str) -> None:
        self.plan = plan
        self._name = name
        self._users = 0
        self._recent: list[tuple[str, str]] = []
        self._open = _Bag(_OPEN_KEPT)
        self._ended = _Bag(_ENDED_KEPT)

    async def act(self, client: "Client", rng: random.Random, timeout_seconds: float) -> None:
        """Do one thing, and with a join all that it takes to be told whether the user waits."""
        chance = rng.random()
        if self._open and chance < self.plan.leaves:
            self._learn(await client.leave(*self._open.draw(rng), timeout_seconds))
        elif self._open and chance < self.plan.leaves + self.plan.polls / (1 + self.plan.polls):
            known = self._ended if self._ended and rng.random() < 0.1 else self._open
            made = await client.poll(*known.draw(rng), timeout_seconds)
            if made.status == 0:
                client.move()
            self._learn(made)
        else:
            await self._join(client, rng, timeout_seconds)

    async def _join(self, client: "Client", rng: random.Random, timeout_seconds: float) -> None:
        coupon, user = self._next(rng)
        for _ in range(1 + self.plan.asks_again):
            made = await client.join(coupon, user, timeout_seconds)
            if made.is_joined:
                self._learn(made)
            if not made.is_unknown:
                return
            if made.status == 0:
                client.move()
            await asyncio.sleep(rng.uniform(0.5, 1.5) * self.plan.pause_seconds)

    def _next(self, rng: random.Random) -> tuple[str, str]:
        if self._recent and rng.random() < self.plan.repeats:
            return rng.choice(self._recent)
        self._users += 1
        pair = (rng.choice(self.plan.coupons), f"{self._name}-w{self._users:07d}")
        if len(self._recent) < _RECENT:
            self._recent.append(pair)
        else:
            self._recent[self._users % _RECENT] = pair
        return pair

    def _learn(self, made: Invocation) -> None:
        known = (made.coupon, made.user, made.ticket)
        if made.state in _ENDS or made.status == 204:
            self._open.discard(made.ticket)
            self._ended.add(known)
        elif made.is_joined:
            self._open.add(known)
