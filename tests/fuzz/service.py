"""The HTTP service as its connections see it: no sockets, storage in memory, and nothing that waits."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_network
from typing import Any

import structlog
from opentelemetry.trace import NoOpTracer

from claimsvc.application.readiness import Readiness
from claimsvc.domain import ClaimOptions, NewCode, RefusedRow, StrategyName, UnknownCoupon
from claimsvc.errors import UnavailableError
from claimsvc.http.app import create_app
from claimsvc.http.framework.services import Services
from claimsvc.http.server.cors import Cors
from claimsvc.observability.tracing.requests import RequestTracer
from claimsvc.ports import PendingOutcome
from tests.support.admin import ADMIN_DIGEST
from tests.support.memory_store import MemoryStore
from tests.support.serving import Running, running

# More than the longest way to an answer.
_TURNS = 60


class _Strategy:
    """`ports.AnyClaims` in a `MemoryStore`."""

    name = "memory"

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def claim(self, coupon_name: str, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        answer = PendingOutcome()
        answer.follow(self._store.claim_unit(coupon_name, user_id))
        return answer

    def claim_first(self, coupon_type: str | None, user_id: str, options: ClaimOptions | None = None) -> PendingOutcome:
        return self.claim(next(iter(self._store.of_type(coupon_type)), ""), user_id, options)

    async def drain(self) -> None: ...


class _Absent:
    """A port whose server is down: its parsers and rules come first, and all else is 503."""

    def __getattr__(self, name: str) -> Any:
        async def unavailable(*_: object, **__: object) -> Any:
            raise UnavailableError("there is none here", dependency="postgresql")

        return unavailable


class _Codes(_Absent):
    """The same, but a file of codes is read to its end."""

    async def add(
        self, coupon_name: str, rows: AsyncIterator[Sequence[NewCode | RefusedRow]], *_: object, **__: object
    ) -> UnknownCoupon:
        async for _rows in rows:
            pass
        return UnknownCoupon()


class _Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_reading(self) -> bool:
        return not self.closing

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None: ...

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class _Errors(logging.Handler):
    """Keeps what aiohttp logs as an error: it has closed a connection without an answer."""

    def __init__(self, failures: list[object]) -> None:
        super().__init__(logging.ERROR)
        self._failures = failures

    def emit(self, record: logging.LogRecord) -> None:
        self._failures.append((record.getMessage(), record.exc_info))


class MemoryServer:
    """Connections of the real server, to which bytes are fed.

    Requests can be sent to it until `close`.
    """

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._failures: list[object] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self._failures.append(context))
        self._errors = _Errors(self._failures)
        logging.getLogger("aiohttp").addHandler(self._errors)
        self._serving = running(create_app(self._services()))
        self._running: Running = self._runner.run(self._serving.__aenter__())

    def _services(self) -> Services:
        store = MemoryStore()
        self._runner.run(store.create_coupon("plenty", 10**9, StrategyName.REDLOCK))
        absent: Any = _Absent()
        stored: Any = store
        return Services(
            strategy=_Strategy(store),
            coupons=stored,
            claim_records=stored,
            campaigns=stored,
            transitions=stored,
            codes=_Codes(),
            count_codes=absent.count,
            audience=stored,
            tickets=absent,
            progress=absent,
            lock_admin=absent,
            audit=stored,
            exports=absent,
            erasure=absent,
            api_keys=absent,
            readiness=Readiness({}),
            begin_render_metrics=lambda _: lambda: (b"", "text/plain"),
            admin_key_digests=(ADMIN_DIGEST,),
            tracer=RequestTracer(NoOpTracer(), 10**6),
            trusted_proxies=[ip_network("127.0.0.0/8")],
            cors=Cors(["https://shop.example"]),
        )

    def feed(self, pieces: Sequence[bytes]) -> bytes:
        """What a connection answers to these pieces before it is lost.

        Raises:
            AssertionError: something failed, in the event loop or in the log, that the client was not told.
        """
        with structlog.testing.capture_logs() as lines:
            answered = self._runner.run(self._feed(pieces))
        assert [line for line in lines if line["log_level"] in {"error", "critical"}] == []
        assert self._failures == [], self._failures
        return answered

    async def _feed(self, pieces: Sequence[bytes]) -> bytes:
        assert self._running.runner.server is not None
        wire, connection = _Wire(), self._running.runner.server()
        connection.connection_made(wire)
        for piece in pieces:
            if not wire.closing:
                connection.data_received(piece)
                await asyncio.sleep(0)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        connection.connection_lost(None)
        for _ in range(3):
            await asyncio.sleep(0)
        return bytes(wire.written)

    def close(self) -> None:
        """Stop it."""
        logging.getLogger("aiohttp").removeHandler(self._errors)
        self._runner.run(self._serving.__aexit__(None, None, None))
        self._runner.close()
