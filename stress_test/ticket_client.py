"""Follows the tickets of a queue until they have ended, and reads what the service tells of the queue."""

import asyncio
from urllib.parse import quote

import aiohttp

from stress_test.answers import moment_of, no_answer, ticket_seen
from stress_test.client import ReadBackError, ServiceClient, items_of
from stress_test.history import History, TicketSeen
from stress_test.tickets import DrawHistory, DrawSeen, TicketHistory

# How often a ticket is read, and how many are read in a second at most.
_READ_SECONDS = 0.4
_MOST_READS_A_SECOND = 250
# Between the last end and reading all ends once more.
_FINAL_SECONDS = 1.0
_DRAWN_WITHIN_SECONDS = 30.0


class TicketClient(ServiceClient):
    """A client that reads tickets, queues and draws, too."""

    async def read_draw(self, coupon_name: str) -> DrawSeen:
        """Read all pages of a draw.

        Raises:
            ReadBackError: it could not be read.
        """
        path = f"/api/coupons/{quote(coupon_name, safe='')}/draw"
        entries: list[str] = []
        digest, seed = "", None
        async for page in self.pages(path):
            digest, seed = str(page.get("seed_hash")), page.get("seed")
            entries += map(str, items_of(path, page, "entries"))
        return DrawSeen(digest, None if seed is None else str(seed), tuple(entries))

    async def read_ticket(self, ticket_id: str) -> TicketSeen | None:
        """Read a ticket; None for a 404.

        Raises:
            ReadBackError: it could not be read.
        """
        path = f"/api/tickets/{quote(ticket_id, safe='')}"
        payload = await self._read(path)
        ticket = ticket_seen(payload)
        if ticket is None and payload is not None:
            raise ReadBackError(f"GET {path} does not return a ticket: {payload!r:.100}")
        return ticket

    async def follow(self, history: History, draw_before: DrawSeen | None, within_seconds: float) -> TicketHistory:
        """Read all tickets of a coupon until they have ended, and then all of them once more.

        Args:
            history: the answers, with the tickets.
            draw_before: the draw, read before anybody joined; None if the order is not drawn.
            within_seconds: when those that have not ended are given up.

        Raises:
            ReadBackError: the service could not be read.
        """
        name = history.coupon.name
        readings: dict[str, list[TicketSeen]] = {}
        for attempt in history.attempts:
            if attempt.ticket is not None:
                readings.setdefault(attempt.ticket.id, []).append(attempt.ticket)
        for told in readings.values():  # answers to one user may have been read in another order
            told.sort(key=lambda each: (each.has_ended, -(each.position or 0)))
        every = max(_READ_SECONDS, len(readings) / _MOST_READS_A_SECOND)
        tasks = [asyncio.create_task(self._until_end(told, every, within_seconds)) for told in readings.values()]
        try:
            places = () if draw_before is None else await self._places_while_paused(name)
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.sleep(_FINAL_SECONDS)
        again = await asyncio.gather(*map(self.read_ticket, readings))
        listed, tries = await self._listed(name)
        coupon = await self._read_object(f"/api/coupons/{quote(name, safe='')}")
        starts_at = coupon.get("starts_at")
        return TicketHistory(
            {id_: tuple(told) for id_, told in readings.items()},
            dict(zip(readings, again, strict=True)),
            tuple(listed),
            tries,
            None if starts_at is None else moment_of(starts_at),
            None if draw_before is None else DrawHistory(draw_before, await self.read_draw(name), places),
        )

    async def _listed(self, coupon_name: str) -> tuple[list[TicketSeen], dict[str, int]]:
        """Read all tickets of a coupon, and how often the claim of each was begun."""
        path = f"/api/coupons/{quote(coupon_name, safe='')}/tickets"
        tickets: list[TicketSeen] = []
        tries: dict[str, int] = {}
        async for page in self.pages(path, as_admin=True):
            for item in items_of(path, page, "items"):
                ticket = ticket_seen(item)
                if ticket is None or not isinstance(item, dict):
                    raise ReadBackError(f"GET {path} lists an item that is not a ticket: {item!r:.100}")
                tickets.append(ticket)
                tries[ticket.id] = int(item.get("tries") or 0)
        return tickets, tries

    async def _places_while_paused(self, coupon_name: str) -> tuple[TicketSeen, ...]:
        """Wait for the draw, pause the queue, read all tickets, and resume it: so nobody moves while they are read.

        Raises:
            ReadBackError: nothing was drawn in time, or the queue could not be paused or read.
        """
        deadline = asyncio.get_running_loop().time() + _DRAWN_WITHIN_SECONDS
        while (await self.read_draw(coupon_name)).seed is None:
            if asyncio.get_running_loop().time() > deadline:
                raise ReadBackError(f"nothing was drawn within {_DRAWN_WITHIN_SECONDS:g} s of the start")
            await asyncio.sleep(_READ_SECONDS)
        await self._pause(coupon_name, "pause")
        try:
            ids = [each.id for each in (await self._listed(coupon_name))[0] if not each.has_ended]
            seen = await asyncio.gather(*map(self.read_ticket, ids))
        finally:
            await self._pause(coupon_name, "resume")
        return tuple(each for each in seen if each is not None)

    async def _pause(self, coupon_name: str, word: str) -> None:
        url = self._url(f"/api/coupons/{quote(coupon_name, safe='')}/queue/{word}")
        try:
            async with self._session.post(
                url, json={"reason": "the stress test reads the places"}, headers=self._authorization
            ) as response:
                if response.status == 200:
                    return
                reason = str(response.status)
        except (aiohttp.ClientError, OSError) as failure:
            reason = no_answer(failure).outcome
        raise ReadBackError(f"POST {url} answered {reason} instead of 200")

    async def _until_end(self, told: list[TicketSeen], every: float, within_seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + within_seconds
        while not told[-1].has_ended and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(every)
            seen = await self.read_ticket(told[-1].id)
            if seen is None:
                return
            told.append(seen)
