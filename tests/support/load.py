"""The load: clients that claim, ask anew after an unknown answer, wait in queues, and read, all of it recorded."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from types import TracebackType
from typing import Self

import orjson

from tests.support.history import ALREADY_CLAIMED, CLAIM, JOIN, LEAVE, POLL, READ, History, Invocation
from tests.support.instance import Instance
from tests.support.load_connection import (
    Answer,
    NoAnswerError,
    Wire,
    claim_request,
    connect,
    leave_request,
    poll_request,
    read_request,
)
from tests.support.load_tickets import QueuePlan, Waiters

_CONNECT_SECONDS = 2.0
_RECONNECT_PAUSE_SECONDS = 0.05
_RECENT = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """What the clients do.

    Args:
        coupons: their names.
        weights: how often each is claimed, compared with the others; all equally often by default.
        clients: how many there are, each with one connection and one request under way.
        per_second: claims of all clients together; None for as fast as they get answers.
        timeout_seconds: how long a client waits for an answer.
        repeats: the part of claims made by a user who claimed that coupon before.
        twins: the part of claims that two clients make for the same user, at about the same time.
        reads: the part of requests that read a coupon.
        hang_ups: the part of claims whose client hangs up within `hang_up_seconds`.
        asks_again: how often a user asks again, at whatever instance, after an answer that decided nothing.
        pause_seconds: how long it waits before that.
        moves: how often a client changes to another instance by itself, so that one that was away is used again.
        queues: what is done with coupons that have queues, and are not among `coupons`; None without any.
        waits: the part of requests that is about queues.
    """

    coupons: Sequence[str]
    weights: Sequence[float] = ()
    clients: int = 48
    per_second: float | None = None
    timeout_seconds: float = 10.0
    repeats: float = 0.03
    twins: float = 0.02
    reads: float = 0.01
    hang_ups: float = 0.0
    hang_up_seconds: float = 0.02
    asks_again: int = 200
    pause_seconds: float = 0.1
    moves: float = 0.01
    queues: QueuePlan | None = None
    waits: float = 0.2


class Client:
    """One client: at most one connection, and one thing at a time.

    Args:
        name: what the history calls it.
        targets: the instances it may ask; it stays with one for as long as that answers.
        history: where everything is recorded.
        first: the place of the target that it begins with.
    """

    def __init__(self, name: str, targets: Sequence[Instance], history: History, first: int = 0) -> None:
        self.name = name
        self._targets = targets
        self._history = history
        self._target = first % len(targets)
        self._wire: Wire | None = None

    async def open(self) -> None:
        """Connect before anything is to be sent.

        Raises:
            NoAnswerError: nobody listens.
        """
        self._wire = await connect(self._targets[self._target].port, _CONNECT_SECONDS)

    async def claim(
        self, coupon: str, user: str, timeout_seconds: float = 10.0, *, hang_up_seconds: float | None = None
    ) -> Invocation:
        """Claim once, and record it. With `hang_up_seconds` it ends the connection by then."""
        made = self._history.begin(self.name, CLAIM, coupon, user, self._targets[self._target].name)
        patience = timeout_seconds if hang_up_seconds is None else hang_up_seconds
        kind = "timeout" if hang_up_seconds is None else "hung-up"
        answer = await self._ask(made, claim_request(coupon, user), patience, kind)
        if answer is not None:
            claim, problem = "", ""
            with suppress(ValueError, KeyError, TypeError):
                told = orjson.loads(answer.body)
                if answer.status == 201:
                    claim = told["id"]
                else:
                    problem = told["type"].rpartition("/")[2]
                    claim = told["claim"]["id"] if problem == ALREADY_CLAIMED else ""
            self._history.end(made, answer.status, problem, claim)
        return made

    async def read(self, coupon: str, timeout_seconds: float = 10.0) -> Invocation:
        """Read a coupon, and record what it showed."""
        made = self._history.begin(self.name, READ, coupon, "", self._targets[self._target].name)
        answer = await self._ask(made, read_request(coupon), timeout_seconds, "timeout")
        if answer is not None:
            problem = ""
            with suppress(ValueError, KeyError, TypeError):
                told = orjson.loads(answer.body)
                if answer.status == 200:
                    made.remaining, made.claimants = told["remaining_amount"], len(told["claimed_by"])
                else:
                    problem = told["type"].rpartition("/")[2]
            self._history.end(made, answer.status, problem)
        return made

    async def join(self, coupon: str, user: str, timeout_seconds: float = 10.0) -> Invocation:
        """Claim a coupon with a queue, and record which ticket that came to."""
        made = self._history.begin(self.name, JOIN, coupon, user, self._targets[self._target].name)
        return await self._ask_ticket(made, claim_request(coupon, user), timeout_seconds)

    async def poll(self, coupon: str, user: str, ticket: str, timeout_seconds: float = 10.0) -> Invocation:
        """Read a ticket, and record what it showed."""
        made = self._history.begin(self.name, POLL, coupon, user, self._targets[self._target].name, ticket)
        return await self._ask_ticket(made, poll_request(ticket), timeout_seconds)

    async def leave(self, coupon: str, user: str, ticket: str, timeout_seconds: float = 10.0) -> Invocation:
        """Leave a queue, and record whether that was still possible."""
        made = self._history.begin(self.name, LEAVE, coupon, user, self._targets[self._target].name, ticket)
        return await self._ask_ticket(made, leave_request(ticket), timeout_seconds)

    async def _ask_ticket(self, made: Invocation, request: bytes, timeout_seconds: float) -> Invocation:
        answer = await self._ask(made, request, timeout_seconds, "timeout")
        if answer is not None:
            claim, problem = "", ""
            with suppress(ValueError, KeyError, TypeError):
                told = orjson.loads(answer.body)
                if answer.status >= 400:
                    problem = told["type"].rpartition("/")[2]
                    claim = told["claim"]["id"] if problem == ALREADY_CLAIMED else ""
                    told = told.get("ticket")
                if told is not None:
                    made.ticket, made.state, made.stopped = told["id"], told["state"], told["stopped"] or ""
                    made.position = -1 if told["position"] is None else told["position"]
                    claim = ((told["outcome"] or {}).get("claim") or {}).get("id", claim)
            self._history.end(made, answer.status, problem, claim)
        return made

    def move(self) -> None:
        """Ask the next instance from now on."""
        self.close()
        self._target = (self._target + 1) % len(self._targets)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def _ask(self, made: Invocation, request: bytes, patience: float, kind: str) -> Answer | None:
        try:
            if self._wire is None or not self._wire.is_open:
                self._wire = await connect(self._targets[self._target].port, _CONNECT_SECONDS)
            answer = await self._wire.ask(request, patience, or_else=kind)
        except NoAnswerError as error:
            self.close()
            self._history.end(made, 0, error.kind)
            return None
        except asyncio.CancelledError:
            self.close()
            self._history.end(made, 0, "hung-up")
            raise
        made.has_retry_after = answer.has_header(b"retry-after")
        if answer.closes:
            self.close()
        return answer


class Load:
    """Clients at work, from entering to leaving. On leaving they finish what is under way, and stop.

    Args:
        targets: the instances; clients are dealt to them in turn, and move on from one that does not answer.
        plan: what they do.
        history: where everything is recorded.
        rng: what they do is drawn from it.
        name: what the users' names begin with: another one for each load of a history.
    """

    def __init__(
        self, targets: Sequence[Instance], plan: Plan, history: History, rng: random.Random, name: str = "u"
    ) -> None:
        self.plan = plan
        self.history = history
        self.begun_at = self.ended_at = 0
        self._targets = tuple(targets)
        self._name = name
        self._seed = rng.getrandbits(64)
        self._users = 0
        self._weights = list(accumulate(plan.weights or [1.0] * len(plan.coupons)))
        self._recent: list[tuple[str, str]] = []
        self._twin: tuple[str, str] | None = None
        self._waiters = None if plan.queues is None else Waiters(plan.queues, name)
        self._slot = 0.0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self.begun_at = time.monotonic_ns()
        self._slot = time.monotonic()
        self._tasks = [asyncio.create_task(self._work(number)) for number in range(self.plan.clients)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stopping = True
        self.ended_at = time.monotonic_ns()
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=kind is not None)
        del ends

    async def _work(self, number: int) -> None:
        rng = random.Random(f"{self._seed}/{number}")
        client = Client(f"{self._name}-client-{number}", self._targets, self.history, number)
        try:
            while not self._stopping:
                await self._pace()
                if rng.random() < self.plan.moves:
                    client.move()
                if self._waiters is not None and rng.random() < self.plan.waits:
                    await self._waiters.act(client, rng, self.plan.timeout_seconds)
                elif rng.random() < self.plan.reads:
                    if (await client.read(self._pick(rng), self.plan.timeout_seconds)).status == 0:
                        client.move()
                else:
                    await self._claim(client, rng)
        finally:
            client.close()

    async def _claim(self, client: Client, rng: random.Random) -> None:
        """One claim, asked again until it is decided: by the same user, and elsewhere if there was no answer."""
        coupon, user = self._next(rng)
        plan = self.plan
        for _ in range(1 + plan.asks_again):
            hang_up = rng.uniform(0, plan.hang_up_seconds) if rng.random() < plan.hang_ups else None
            made = await client.claim(coupon, user, plan.timeout_seconds, hang_up_seconds=hang_up)
            if made.is_definite or self._stopping:
                break
            if made.status == 0 and hang_up is None:
                client.move()
            if hang_up is None:
                await asyncio.sleep(rng.uniform(0.5, 1.5) * plan.pause_seconds)

    def _next(self, rng: random.Random) -> tuple[str, str]:
        if self._twin is not None:
            pair, self._twin = self._twin, None
            return pair
        chance = rng.random()
        if chance < self.plan.repeats and self._recent:
            return rng.choice(self._recent)
        self._users += 1
        pair = (self._pick(rng), f"{self._name}-{self._users:07d}")
        if len(self._recent) < _RECENT:
            self._recent.append(pair)
        else:
            self._recent[self._users % _RECENT] = pair
        if chance > 1 - self.plan.twins:
            self._twin = pair
        return pair

    def _pick(self, rng: random.Random) -> str:
        return rng.choices(self.plan.coupons, cum_weights=self._weights)[0]

    async def _pace(self) -> None:
        if self.plan.per_second is None:
            return
        # Who is late does not make up for it: a fault must not be followed by a flood that it did not cause.
        self._slot = max(self._slot + 1 / self.plan.per_second, time.monotonic() - 0.1)
        if (wait := self._slot - time.monotonic()) > 0:
            await asyncio.sleep(wait)
