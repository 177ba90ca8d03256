"""Starts the tickets of queues: leases them at the pace that all instances share, and makes their claims.

A lease is committed before its claim begins, and the claim's transaction writes the ticket's end. So whatever stops
this process, the ticket is started again by who finds that its lease has ended, or it has ended.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from claimsvc.background import in_background
from claimsvc.domain import (
    MOST_TRIES,
    Claimed,
    ClaimOutcome,
    HoldContinued,
    LeaseLost,
    NotStarted,
    Paused,
    StartedTicket,
    TicketState,
    WaitsForUnits,
)
from claimsvc.errors import ClaimsvcError, LockBusyError
from claimsvc.ports import Claims, Dispatched, FailedTry, TicketObserver, Tickets

_log = structlog.get_logger("claimsvc.tickets")

LEASE_SECONDS = 5.0
_RENEW_SECONDS = LEASE_SECONDS / 3
# How often another instance's queues are looked at: one that stops leaves its queues to the others.
_LOOK_SECONDS = 0.25
_LOOK_WHILE_IDLE_SECONDS = 1.0
# How soon queues are looked at again that another instance has locked, at first.
_LOCKED_OUT_SECONDS = 0.01
# After this time without any work, this instance looks less often.
_IDLE_SECONDS = 10.0
_AFTER_FAILURE_SECONDS = 0.5
_LONGEST_RETRY_SECONDS = 60.0
# For how long a queue is stopped after a failure, so that an outage uses up few tries.
_STOP_SECONDS = 1.0
# A unit that comes back is given to the ticket in the same transaction; this is for those that were added meanwhile.
_UNITS_SECONDS = 60.0


class TicketDispatcher:
    """Starts tickets until its context is left.

    Args:
        tickets: stores them.
        claims: makes the claims.
        observer: receives starts and ends.
        instance: the name of this instance, for operators.
        on_change: called with the coupon after tickets have started or ended.
    """

    def __init__(
        self,
        tickets: Tickets,
        claims: Claims,
        observer: TicketObserver,
        *,
        instance: str,
        on_change: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._tickets = tickets
        self._claims = claims
        self._observer = observer
        self._instance = instance
        self._on_change = on_change
        self._under_way: dict[asyncio.Future[ClaimOutcome], StartedTicket] = {}
        self._freed: set[str] = set()
        self._failed: list[FailedTry] = []
        self._wake = asyncio.Event()
        # When the queues that this instance started tickets of are due (monotonic seconds).
        self._due: dict[str, float] = {}
        self._worked_at = 0.0
        # How long to wait for queues that other instances use just now; 0 if there are none.
        self._locked_out_seconds = 0.0

    def joined(self, coupon_name: str) -> None:
        """Look at once whether tickets can be started, because some have joined."""
        self._wake.set()

    def running(self) -> AbstractAsyncContextManager[None]:
        """Start tickets while the context is entered."""
        return in_background(self._run(), self._renew())

    async def _run(self) -> None:
        while True:
            try:
                await self._dispatch_all()
            except ClaimsvcError as error:
                _log.info("tickets could not be started now", error=str(error))
                await asyncio.sleep(_AFTER_FAILURE_SECONDS)
            except Exception:  # noqa: BLE001 - a failed pass must not end the loop
                _log.exception("starting tickets failed")
                await asyncio.sleep(_AFTER_FAILURE_SECONDS)
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait for the next ticket that may be started, an end, or the time to look at all queues."""
        now = time.monotonic()
        is_idle = not self._under_way and now - self._worked_at > _IDLE_SECONDS
        look = _LOOK_WHILE_IDLE_SECONDS if is_idle else _LOOK_SECONDS
        wait = min((due - now for due in self._due.values()), default=look)
        if self._locked_out_seconds:
            wait = min(wait, self._locked_out_seconds)
        if wait > 0:
            try:
                async with asyncio.timeout(min(wait, look)):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self._wake.clear()

    async def _dispatch_all(self) -> None:
        """Start all tickets that may be started now."""
        skipped: set[str] = set()
        is_locked_out = False
        try:
            while True:
                await self._put_back_failed()
                freed, self._freed = self._freed, set()
                now = time.monotonic()
                # By this process's clock, because the database's may have been set back.
                freed |= {name for name, due in self._due.items() if due <= now}
                if not freed:
                    due_in = await self._tickets.due_in()
                    if due_in is None or due_in > 0:
                        return
                dispatched = await self._dispatch(freed)
                skipped |= set(dispatched.skipped)
                if not dispatched.looked_at:
                    is_locked_out = True
                    return
        finally:
            self._freed |= skipped
            locked_out_seconds = min(2 * self._locked_out_seconds + _LOCKED_OUT_SECONDS, _LOOK_SECONDS)
            self._locked_out_seconds = locked_out_seconds if skipped or is_locked_out else 0.0

    async def _dispatch(self, freed: set[str]) -> Dispatched:
        try:
            dispatched = await self._tickets.dispatch(self._instance, lease_seconds=LEASE_SECONDS, freed=freed)
        except BaseException:
            self._freed |= freed
            raise
        now = time.monotonic()
        self._due = {name: due for name, due in self._due.items() if name not in freed}
        self._due |= {name: now + seconds for name, seconds in dispatched.due_seconds.items()}
        for ends, end in ((dispatched.expired, TicketState.EXPIRED), (dispatched.dead, TicketState.DEAD)):
            for name, count in ends.items():
                for _ in range(count):
                    self._observer.ticket_ended(name, end)
                self._on_change(name)
        if dispatched.started:
            self._worked_at = now
            self._observer.dispatched(dispatched.lag_seconds)
        for ticket in dispatched.started:
            self._begin(ticket)
        return dispatched

    def _begin(self, ticket: StartedTicket) -> None:
        if ticket.tries == 1:
            waited = (ticket.started_at - ticket.joined_at).total_seconds()
            self._observer.ticket_started(ticket.coupon_name, waited)
        claim = self._claims.claim(ticket.coupon_name, ticket.user_id, ticket.options)
        self._under_way[claim] = ticket
        claim.add_done_callback(self._ended)

    def _ended(self, claim: "asyncio.Future[ClaimOutcome]") -> None:
        ticket = self._under_way.pop(claim)
        self._freed.add(ticket.coupon_name)
        self._wake.set()
        error = asyncio.CancelledError() if claim.cancelled() else claim.exception()
        if error is not None:
            self._failed.append(_failed(ticket, error))
            return
        outcome = claim.result()
        if isinstance(outcome, Paused | NotStarted):
            self._failed.append(FailedTry(ticket, retry_seconds=1.0, counts=False))
        elif isinstance(outcome, WaitsForUnits):
            self._failed.append(FailedTry(ticket, retry_seconds=_UNITS_SECONDS, counts=False))
        elif not isinstance(outcome, LeaseLost):
            is_claimed = isinstance(outcome, Claimed | HoldContinued)
            self._observer.ticket_ended(ticket.coupon_name, TicketState.CLAIMED if is_claimed else TicketState.REFUSED)
            self._on_change(ticket.coupon_name)

    async def _put_back_failed(self) -> None:
        failed, self._failed = self._failed, []
        if not failed:
            return
        try:
            await self._tickets.put_back(failed)
        except ClaimsvcError:
            # Their leases end by themselves.
            self._freed |= {each.ticket.coupon_name for each in failed}
            raise
        for each in failed:
            if each.retry_seconds is None:
                self._observer.ticket_ended(each.ticket.coupon_name, TicketState.DEAD)
            self._on_change(each.ticket.coupon_name)

    async def _renew(self) -> None:
        """Keep the leases of claims that take long."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            if self._under_way:
                try:
                    await self._tickets.renew(list(self._under_way.values()), lease_seconds=LEASE_SECONDS)
                except ClaimsvcError as error:
                    _log.info("leases of tickets could not be renewed", error=str(error))


def _failed(ticket: StartedTicket, error: BaseException) -> FailedTry:
    if ticket.tries >= MOST_TRIES:
        retry_seconds = None
    else:
        # Half of it at random, so that what failed together is not tried together again.
        longest = min(_LONGEST_RETRY_SECONDS, 2.0 ** (ticket.tries - 1))
        retry_seconds = longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    _log.warning("claim of a ticket failed", ticket=ticket.lease.ticket_id, tries=ticket.tries, error=str(error))
    return FailedTry(ticket, retry_seconds, 0.0 if isinstance(error, LockBusyError) else _STOP_SECONDS)
