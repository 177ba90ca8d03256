"""Idempotency-Key: a request is executed once, and repetitions under its key get the stored response.

Implements the IETF's draft-ietf-httpapi-idempotency-key-header-07. The use case stores the response in its own
transaction (see `claimsvc.postgres`), so that it survives this process. This module knows which requests this process
is executing now.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aiohttp import web
from multidict import istr
from pydantic import BaseModel

from claimsvc.domain import IdempotencyKey, KeyReused, Replayed
from claimsvc.domain.outcomes import is_stored_for_nothing
from claimsvc.domain.problems import BAD_REQUEST, KEY_IN_FLIGHT
from claimsvc.http.framework.fingerprints import SENT, fingerprint, former_fingerprint
from claimsvc.http.framework.services import CALLER
from claimsvc.http.framework.stored_answers import STORED_ANSWERS, bounded_caller
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import ParameterError, RefusedError
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY

REPLAYED = istr("Idempotency-Replayed")
# How long a repetition waits for the first request. Longer than a claim usually takes.
_WAIT_SECONDS = 2.0
# A string of RFC 9651 that is not blank, or the same without quotation marks, as most clients send it.
KEY_PATTERN = r'"(?! *")((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-+\--~]{1,255})'
_KEY = re.compile(KEY_PATTERN, re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')


def key_of(request: web.Request, body: BaseModel | None) -> IdempotencyKey | None:
    """The request's idempotency key, with a fingerprint of the request; None if it has no key.

    Args:
        request: the request, after `authorize`.
        body: the validated body; of a stream, what it is identified by.

    Raises:
        RefusedError: the header is malformed.
    """
    keys = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        return None
    found = _KEY.fullmatch(keys[0].strip()) if len(keys) == 1 else None
    if found is None:
        error = ParameterError(
            "Must be one string of 1 to 255 visible ASCII characters, such as 8e03978e-40d5-43e8-bc93-6894a57f9324.",
            IDEMPOTENCY_KEY,
        )
        raise RefusedError(BAD_REQUEST, errors=[error])
    sent = request.get(SENT)
    if sent is None and body is not None:
        sent = body.model_dump(mode="json")
    return IdempotencyKey(
        request[CALLER].name,
        found[2] or _ESCAPED.sub(r"\1", found[1]),
        fingerprint(request.method, request.path, sent),
        request[REQUEST_ID],
        former_fingerprint=former_fingerprint(request.method, request.path, body),
    )


class InFlight:
    """The requests with an idempotency key that this process is executing."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], tuple[IdempotencyKey, asyncio.Future[Any]]] = {}

    async def join(self, key: IdempotencyKey, begin: Callable[[], Awaitable[Any]]) -> Any:
        """Execute a request, or wait up to two seconds for the same request if it is being executed.

        Args:
            key: the request's key.
            begin: executes the request.

        Returns:
            The outcome of `begin`; `Replayed` with the outcome of the first request; or `KeyReused` if the key was
            used for a different request.

        Raises:
            RefusedError: the first request takes longer.
        """
        place = key.caller, key.key
        first = self._pending.get(place)
        if first is None:
            answer: asyncio.Future[Any] = asyncio.ensure_future(begin())
            self._pending[place] = key, answer
            answer.add_done_callback(lambda _: self._pending.pop(place))
            # If this client disconnects, the execution goes on: repetitions wait for its outcome.
            return await asyncio.shield(answer)
        first_key, pending = first
        if first_key.fingerprint != key.fingerprint:
            return KeyReused()
        done, _ = await asyncio.wait([pending], timeout=_WAIT_SECONDS)
        if not done or pending.cancelled():
            raise RefusedError(KEY_IN_FLIGHT)
        outcome = pending.result()
        return outcome if isinstance(outcome, Replayed) else Replayed(outcome, first_key.request_id)


async def once_only(
    request: web.Request, body: BaseModel | None, begin: Callable[[IdempotencyKey | None], Awaitable[Any]]
) -> Any:
    """Execute a request once under its idempotency key; without a key, execute it.

    Args:
        request: the request.
        body: the validated body, if it has one; of a stream, what it is identified by.
        begin: executes the request. It receives the key, and stores the outcome under it.

    Returns:
        The outcome of `begin`, or `Replayed` or `KeyReused`.

    Raises:
        RefusedError: the header is malformed, or the same request is still being executed.
    """
    key = key_of(request, body)
    if key is None:
        return await begin(None)
    stored, caller = request.app[STORED_ANSWERS], bounded_caller(request)
    if caller is None:
        return await request.app[IN_FLIGHT].join(key, lambda: begin(key))
    bounded_key = replace(key, keeps_all=stored.may_store(caller))

    async def begin_and_count() -> Any:
        outcome = await begin(bounded_key)
        if bounded_key.keeps_all and is_stored_for_nothing(outcome):
            stored.stored(caller)
        return outcome

    return await request.app[IN_FLIGHT].join(bounded_key, begin_and_count)


def replayed(reply: Reply) -> Reply:
    """Mark a reply as a repetition, with the header `Idempotency-Replayed`."""
    reply.headers[REPLAYED] = "true"
    return reply


IN_FLIGHT: web.AppKey[InFlight] = web.AppKey("in_flight", InFlight)
