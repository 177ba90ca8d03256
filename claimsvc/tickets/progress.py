"""Tells those who watch tickets what becomes of them.

One query a tick serves all who watch, however many they are: how many tickets wait in each block of places. Only the
places of blocks that have changed are read, and only tickets that do not wait any more. Whoever is far behind hears of
each place less often.
"""

import asyncio
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from itertools import accumulate

import structlog

from claimsvc.background import in_background
from claimsvc.domain import PLACES_IN_A_BLOCK, QueueProgress, Ticket, TicketState
from claimsvc.domain.pacing import eta_seconds
from claimsvc.errors import ClaimsvcError
from claimsvc.ports import Tickets

_log = structlog.get_logger("claimsvc.tickets")

_TICK_SECONDS = 0.5
# After something has changed in this instance.
_SOON_SECONDS = 0.1
_READ_AT_ONCE = 500
# A new place is told after this share of the time that is left, within these bounds.
_SHARE = 1 / 20
_SOONEST_SECONDS, _LATEST_SECONDS = 1.0, 15.0

_Block = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Watcher:
    """Somebody who waits for news of a ticket."""

    ticket: Ticket
    news: "asyncio.Future[Ticket | None]"
    # When a new place is told (monotonic seconds).
    due_at: float

    def tell(self, ticket: Ticket | None) -> None:
        if not self.news.done():
            self.news.set_result(ticket)


@dataclass(slots=True)
class _Known:
    """What is known of a queue."""

    progress: QueueProgress
    # How many wait in the blocks before each.
    before: Mapping[int, int]
    places: dict[int, Sequence[int]] = field(default_factory=dict)

    def ahead(self, place: int) -> int | None:
        """Return how many wait before a place; None if nobody waits there."""
        block = place // PLACES_IN_A_BLOCK
        waiting = self.places.get(block, ())
        index = bisect_left(waiting, place)
        is_there = index < len(waiting) and waiting[index] == place
        return self.before.get(block, 0) + index if is_there else None


class TicketProgress:
    """`ports.Progress`.

    Args:
        tickets: reads them.
    """

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets
        self._waiting: defaultdict[_Block, set[_Watcher]] = defaultdict(set)
        self._started: set[_Watcher] = set()
        # Those whose tickets are to be looked for among those that wait, because they are new; and those that were not
        # found there, until it is told what became of them.
        self._new: set[_Watcher] = set()
        self._gone: set[_Watcher] = set()
        # How many watch tickets of each coupon.
        self._watched: Counter[str] = Counter()
        self._known: dict[str, _Known] = {}
        self._wake = asyncio.Event()
        self._soon = False

    def running(self) -> AbstractAsyncContextManager[None]:
        """Look for news while the context is entered."""
        return in_background(self._run())

    def noticed(self, coupon_name: str) -> None:
        """Look soon, because tickets of a coupon have started or ended in this instance."""
        if not self._soon and coupon_name in self._watched:
            self._soon = True
            self._wake.set()

    async def changed(self, ticket: Ticket, *, within_seconds: float) -> Ticket | None:
        """See `ports.Progress`."""
        if ticket.state.is_end:
            return ticket
        watcher = _Watcher(ticket, asyncio.get_running_loop().create_future(), time.monotonic() + _interval(ticket))
        watchers = self._started if ticket.state is TicketState.STARTED else self._waiting[_block_of(ticket)]
        watchers.add(watcher)
        self._new.add(watcher)
        self._watched[ticket.coupon_name] += 1
        self._wake.set()
        try:
            async with asyncio.timeout(within_seconds):
                return await watcher.news
        except TimeoutError:
            return self._now(ticket)
        finally:
            for each in (watchers, self._new, self._gone):
                each.discard(watcher)
            self._watched[ticket.coupon_name] -= 1
            if not self._watched[ticket.coupon_name]:
                del self._watched[ticket.coupon_name]
            if not watchers and watchers is not self._started:
                self._waiting.pop(_block_of(ticket), None)

    def _now(self, ticket: Ticket) -> Ticket:
        """Return a ticket with its place as far as it is known."""
        known = self._known.get(ticket.coupon_name)
        ahead = None if known is None or ticket.ahead is None else known.ahead(ticket.place)
        if known is None or ahead is None or ticket.ahead is None:
            return ticket
        ahead = min(ahead, ticket.ahead)
        is_moving = known.progress.stopped is None
        eta = eta_seconds(ahead, known.progress.pace, known.progress.rate_per_second) if is_moving else None
        return replace(ticket, ahead=ahead, eta_seconds=eta, stopped=known.progress.stopped)

    async def _run(self) -> None:
        while True:
            if not self._waiting and not self._started:
                self._known.clear()
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._look()
            except ClaimsvcError as error:
                _log.info("tickets could not be read now", error=str(error))
            except Exception:  # noqa: BLE001 - a failed look must not end the loop
                _log.exception("reading tickets failed")
            await self._until_next()

    async def _until_next(self) -> None:
        """Wait for the next tick, or a little after something has changed here."""
        await asyncio.sleep(_SOON_SECONDS)
        ends = time.monotonic() + _TICK_SECONDS - _SOON_SECONDS
        while not self._soon and (left := ends - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                break
        self._soon = False

    async def _look(self) -> None:
        names = {name for name, _ in self._waiting}
        new, self._new = self._new, set()
        if names:
            try:
                progress = await self._tickets.progress(names)
                changed = self._changed(progress)
                places = await self._tickets.places(changed) if changed else {}
            except BaseException:
                self._new |= new
                raise
            self._learn(progress, places)
            watchers = new.union(*(self._waiting.get(block, ()) for block in changed)) - self._started
            self._gone |= {
                each for each in watchers if not self._is_known_to_wait(each.ticket) and not each.news.done()
            }
            self._tell_places()
        await self._tell_gone([*self._started, *self._gone])

    def _is_known_to_wait(self, ticket: Ticket) -> bool:
        known = self._known.get(ticket.coupon_name)
        return known is not None and known.ahead(ticket.place) is not None

    def _changed(self, progress: Mapping[str, QueueProgress]) -> list[_Block]:
        """Return the watched blocks of which the places are to be read again."""
        changed = []
        for name, block in self._waiting:
            known, now = self._known.get(name), progress.get(name)
            is_last = now is not None and block >= max(now.blocks, default=0)
            if (
                known is None
                or now is None
                or is_last  # some may have joined it while others left
                or block not in known.places
                or now.blocks.get(block, 0) != known.progress.blocks.get(block, 0)
            ):
                changed.append((name, block))
        return changed

    def _learn(self, progress: Mapping[str, QueueProgress], places: Mapping[_Block, Sequence[int]]) -> None:
        known: dict[str, _Known] = {}
        for name, now in progress.items():
            before = dict(zip(now.blocks, accumulate((0, *now.blocks.values())), strict=False))
            kept = self._known[name].places if name in self._known else {}
            known[name] = _Known(now, before, {block: kept[block] for block in kept if (name, block) in self._waiting})
        for (name, block), waiting in places.items():
            if name in known:
                known[name].places[block] = waiting
        self._known = known

    def _tell_places(self) -> None:
        now = time.monotonic()
        for watchers in list(self._waiting.values()):
            for watcher in list(watchers):
                if watcher.due_at <= now:
                    ticket = self._now(watcher.ticket)
                    if (ticket.ahead, ticket.stopped) != (watcher.ticket.ahead, watcher.ticket.stopped):
                        watcher.tell(ticket)
                    else:
                        watcher.due_at = now + _SOONEST_SECONDS

    async def _tell_gone(self, watchers: Sequence[_Watcher]) -> None:
        """Tell what became of tickets that were started, or do not wait any more."""
        ids = list({each.ticket.id for each in watchers})
        found: dict[str, Ticket] = {}
        for first in range(0, len(ids), _READ_AT_ONCE):
            found |= {each.id: each for each in await self._tickets.read(ids[first : first + _READ_AT_ONCE])}
        self._gone.difference_update(watchers)
        for watcher in watchers:
            ticket, known = found.get(watcher.ticket.id), watcher.ticket
            # A draw changes all places.
            if ticket is None or (ticket.state, ticket.place) != (known.state, known.place):
                watcher.tell(ticket)


def _block_of(ticket: Ticket) -> _Block:
    return ticket.coupon_name, ticket.place // PLACES_IN_A_BLOCK


def _interval(ticket: Ticket) -> float:
    """Return after how many seconds a new place is told."""
    seconds = _LATEST_SECONDS if ticket.eta_seconds is None else ticket.eta_seconds * _SHARE
    return max(_SOONEST_SECONDS, min(seconds, _LATEST_SECONDS))
