"""HTTP connections: usual claims are begun on the fast path, all other requests in aiohttp's task.

Only the protocol class of aiohttp can be replaced, so this module and `arrival` alone use its private names.
"""

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import _ErrInfo, _RequestHandler

from claimsvc.domain import Caller
from claimsvc.http.server.aiohttp_internals import forget_exception, take_complete
from claimsvc.http.server.arrival import ArrivingRequests, ConnectionServer, refusal_of
from claimsvc.http.server.fast_path import FastPath, FastPathClaim
from claimsvc.http.server.request_boundary import RequestBoundary
from claimsvc.http.server.under_way import UnderWay


class HttpConnection(ArrivingRequests):
    """One client connection. Runs usual claims on the fast path, and leaves all other requests to aiohttp's task.

    Args:
        manager: the server that the connection belongs to.
        boundary: answers requests that could not be parsed.
        fast_path: serves claims without a task.
        head_timeout_seconds: how long a request's headers may take to arrive.
        under_way: the cap on claims of each address; None without one.
        kwargs: for aiohttp's handler.
    """

    __slots__ = (
        "_boundary",
        "_claim",
        "_fast_path",
        "_place",
        "_turn",
        "_under_way",
        "_unsent_bytes",
        "_unsent_since",
        "_wire",
    )

    def __init__(
        self,
        manager: ConnectionServer,
        boundary: RequestBoundary,
        fast_path: FastPath,
        head_timeout_seconds: float,
        under_way: UnderWay | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(manager, head_timeout_seconds, **kwargs)
        self._boundary = boundary
        self._fast_path = fast_path
        # The claim on the fast path. aiohttp's task is idle meanwhile.
        self._claim: FastPathClaim | None = None
        # What a claim that is about to begin or to be answered waits for: its place in the fair queue, or its caller.
        self._turn: asyncio.Future[Any] | None = None
        self._under_way = under_way
        # The address whose place the claim has.
        self._place: str | None = None
        # The transport until it is lost. aiohttp drops its reference on closing, while responses are still unsent.
        self._wire: asyncio.Transport | None = None
        self._unsent_bytes = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = self.transport

    def connection_lost(self, exc: BaseException | None) -> None:
        self._wire = None
        super().connection_lost(exc)

    def _awaits_head(self) -> bool:
        """Whether arriving data belongs to a head, and not to the body of a request that was begun."""
        return self._request_count == 0 or (
            self._waiter is not None and not self._waiter.done() and self._claim is None and self._turn is None
        )

    def _waiting(self) -> int:
        waiter = self._waiter
        begins = self._claim is None and (self._turn is not None or (waiter is not None and waiter.done()))
        return max(len(self._messages) - begins, 0)

    def _begin_next(self) -> None:
        """Begin the next request: a usual claim on the fast path, any other in aiohttp's task."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._claim or self._turn or not self._messages:
            return
        message, body = self._messages[0]
        is_at_rest = len(self._messages) == 1 and not (self._buffer_paused or self._upgraded or self.writing_paused)
        if not is_at_rest or self._server.is_stopping or not self._fast_path.takes(message, body):
            waiter.set_result(None)
        elif self._under_way is not None and not self._take_place(self._under_way, message):
            waiter.set_result(None)  # aiohttp's task waits for a place
        elif self._fast_path.queue.is_free(self._remote):
            self._begin_claim()
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(self._begin_claim)

    def _take_place(self, under_way: UnderWay, message: Any) -> bool:
        address = under_way.address_of(self._remote, message.headers)
        self._place = address if under_way.enter(address) else None
        return address is None or self._place is not None

    def _leave_place(self) -> None:
        if self._under_way is not None:
            self._under_way.leave(self._place)
            self._place = None

    def _begin_claim(self, _: object = None, caller: Caller | Exception | None = None) -> None:
        self._turn = None
        message, body = self._messages[0]
        if self._wire is None or self._force_close or isinstance(message, _ErrInfo):
            self._leave_place()
            return  # the connection ended while the request waited for its turn
        if caller is None:
            found = self._fast_path.caller_of(message)
            if type(found) is not Caller and isinstance(found, asyncio.Future):
                self._turn = found
                found.add_done_callback(self._begin_identified)
                return
            caller = found
        if caller is None:
            self._leave_place()  # aiohttp's task takes one itself
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)
            return
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        if self._counted_bytes:
            self._count_kept()  # it waits no longer
        self._server.requests_count += 1
        # Unless reading was paused, nothing waits to be parsed.
        is_paused = self._reading_paused or self._buffer_paused
        raw = body.read_nowait() if is_paused else take_complete(body)
        self._claim = self._fast_path.begin(message, raw, self._remote, caller, self._end_claim)

    def _begin_identified(self, found: "asyncio.Future[Any]") -> None:
        self._begin_claim(caller=self._fast_path.identified(found))

    def _end_claim(self, claim: FastPathClaim, _: object) -> None:
        # A batch decides its claims together, and answering each costs as much as beginning it did: queue again.
        if self._fast_path.queue.is_free(self._remote):
            self._reply_to(claim)
        else:
            self._turn = self._fast_path.queue.turn(self._remote)
            self._turn.add_done_callback(partial(self._reply_to, claim))

    def _reply_to(self, claim: FastPathClaim, _: object = None) -> None:
        self._claim = self._turn = None
        if self._under_way is not None:
            self._leave_place()
        try:
            closes = self._close or self._server.is_stopping or (self._rest is not None and self._is_last())
            message, closes = claim.reply(closes=closes)
        except Exception as error:
            # As in `handle_error`: no response can be trusted.
            self.logger.error("The answer could not be made", exc_info=error)
            self.force_close()
            return
        if self.transport is None:
            return  # the client has disconnected; its claim is kept
        self.transport.write(message)
        if closes:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._begin_next()

    def _is_last(self) -> bool:
        """Whether the request that is answered now is the last one that is understood."""
        return self._rest is not None and not self._messages

    def _process_keepalive(self) -> None:
        if self._claim or self._turn:  # busy, although aiohttp's task is idle
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def close(self) -> None:
        """Accept no further request, and close the connection after the last response: immediately, if it is idle.

        aiohttp would go on reading for some iterations of the event loop, and drop the requests it read. Unread input
        resets the connection instead, which shows the client that its request was not accepted.
        """
        is_idle = self._awaits_head() and not self._messages
        super().close()
        if is_idle:
            self.force_close()
        else:
            self._pause_reading()

    def _pause_reading(self) -> None:
        """Read nothing more, unless the body of the last request is incomplete."""
        if self.transport is not None and not self.transport.is_closing() and self._body.is_eof():
            self.transport.pause_reading()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        ends_at = None if timeout is None else self._loop.time() + timeout
        while (pending := self._pending()) is not None:
            left = None if ends_at is None else max(ends_at - self._loop.time(), 0)
            done, _ = await asyncio.wait([pending], timeout=left)
            if not done:
                break
            await asyncio.sleep(0)  # lets its callbacks run
        await super().shutdown(None if ends_at is None else max(ends_at - self._loop.time(), 0))

    def _pending(self) -> "asyncio.Future[Any] | None":
        """What the claim on the fast path waits for; None if there is none."""
        if self._turn is not None or self._claim is None:
            return self._turn
        return self._claim.pending

    def _handle_request(
        self, request: web.BaseRequest, start_time: float | None, request_handler: _RequestHandler
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        if self._counted_bytes:
            self._count_kept()  # it waits no longer
        return super()._handle_request(request, start_time, request_handler)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if self._server.is_stopping or self._is_last():
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if request.content is self._rest:
            # Its refusal is sent; aiohttp, which lingers now, would raise it again.
            forget_exception(request.content)
        if self.writing_paused:
            # aiohttp would begin the next request, and buffer responses without limit for a client that never reads.
            await self._drain_helper()
        if not resp.keep_alive and not request.content.is_eof():
            # The client sees the end of the response now, and need not wait while the server lingers.
            transport = self.transport
            if transport is not None and transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        if self._close or self._force_close:
            self._pause_reading()
        return finished

    def abort_if_stalled(self, now: float, timeout_seconds: float) -> None:
        """Abort the connection if its client blocks it by not reading.

        Args:
            now: the time of the event loop's clock, in seconds.
            timeout_seconds: how long the client may read nothing.
        """
        wire = self._wire
        if wire is None or not (self.writing_paused or wire.is_closing()):
            self._unsent_bytes = 0
            return
        unsent = wire.get_write_buffer_size()
        if not self._unsent_bytes or unsent < self._unsent_bytes:
            self._unsent_bytes, self._unsent_since = unsent, now
        elif now - self._unsent_since >= timeout_seconds:
            wire.abort()

    def _make_error_handler(self, err_info: _ErrInfo) -> _RequestHandler:
        return self._boundary.refusing(refusal_of(err_info.exc))  # type: ignore[return-value]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # The boundary handles every exception, so this one was raised by the boundary itself: no response can be
        # trusted.
        self.logger.error("The answer could not be made", exc_info=exc)
        raise ConnectionError("the response could not be created") from exc
