"""Idempotency-Key: a request is executed once, and repetitions under its key get the stored response.

Implements the IETF's draft-ietf-httpapi-idempotency-key-header-07. The use case stores the response in its own
transaction (see `claimsvc.postgres`), so that it survives this process. This module knows which requests this process
is executing now.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from aiohttp import web
from multidict import istr
from pydantic import BaseModel

from claimsvc.domain import Caller, IdempotencyKey, KeyReused, Replayed
from claimsvc.domain.outcomes import is_stored_for_nothing
from claimsvc.domain.problems import BAD_REQUEST, KEY_IN_FLIGHT
from claimsvc.http.framework.fingerprints import SENT, fingerprint, former_fingerprint
from claimsvc.http.framework.services import CALLER, SERVICES
from claimsvc.http.framework.stored_answers import STORED_ANSWERS, StoredAnswers, bounded_caller
from claimsvc.http.server.addresses import address_of_client
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import ParameterError, RefusedError
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY

_Future = TypeVar("_Future", bound=asyncio.Future[Any])

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
    return named_key(
        keys,
        caller=request[CALLER],
        method=request.method,
        path=request.path,
        sent=request.get(SENT),
        body=body,
        request_id=request[REQUEST_ID],
    )


def named_key(
    values: Sequence[str],
    *,
    caller: Caller,
    method: str,
    path: str,
    sent: Mapping[str, Any] | None,
    body: BaseModel | None,
    request_id: str,
) -> IdempotencyKey:
    """The key that a request names, with a fingerprint of the request.

    Args:
        values: those of the header `Idempotency-Key`, at least one.
        caller: the request's caller, whose keys are its own.
        method: the HTTP method.
        path: the decoded path.
        sent: the parsed body as it was sent; None if there was none, and of a stream.
        body: the validated body; of a stream, what it is identified by.
        request_id: the request's id.

    Raises:
        RefusedError: the header is malformed.
    """
    found = _KEY.fullmatch(values[0].strip()) if len(values) == 1 else None
    if found is None:
        error = ParameterError(
            "Must be one string of 1 to 255 visible ASCII characters, such as 8e03978e-40d5-43e8-bc93-6894a57f9324.",
            IDEMPOTENCY_KEY,
        )
        raise RefusedError(BAD_REQUEST, errors=[error])
    if sent is None and body is not None:
        sent = body.model_dump(mode="json")
    return IdempotencyKey(
        caller.name,
        found[2] or _ESCAPED.sub(r"\1", found[1]),
        fingerprint(method, path, sent),
        request_id,
        partial(former_fingerprint, method, path, body),
    )


class InFlight:
    """The requests with an idempotency key that this process is executing."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str, str], tuple[IdempotencyKey, asyncio.Future[Any]]] = {}

    def begin(
        self,
        key: IdempotencyKey,
        begin: Callable[[IdempotencyKey], _Future],
        ended: Callable[[asyncio.Future[Any]], None] | None = None,
    ) -> _Future | None:
        """Execute a request; None if a request with its key is being executed, whose outcome `repeat` waits for.

        Args:
            key: the request's key.
            begin: executes the request. It receives the key.
            ended: called with what `begin` has returned, once that is done.
        """
        place = key.caller, key.key
        if place in self._pending:
            return None
        answer = begin(key)
        self._pending[place] = key, answer
        # One callback for both: the event loop has work with each.
        answer.add_done_callback(partial(self._end, place, ended))
        return answer

    def _end(
        self, place: tuple[str, str], ended: Callable[[asyncio.Future[Any]], None] | None, answer: asyncio.Future[Any]
    ) -> None:
        del self._pending[place]
        if ended is not None:
            ended(answer)

    async def repeat(self, key: IdempotencyKey) -> Any:
        """Wait up to two seconds for a request with the same key that is being executed.

        Args:
            key: the repetition's key, for which `begin` returned None in the same turn of the event loop.

        Returns:
            `Replayed` with the outcome of the first request; or `KeyReused` if that is a different request.

        Raises:
            RefusedError: the first request takes longer.
        """
        first_key, pending = self._pending[key.caller, key.key]
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
    address = address_of_client(request, request.app[SERVICES].trusted_proxies)
    share = bounded_caller(request[CALLER], address)
    answer = begin_once(request.app, key, share, lambda bounded: asyncio.ensure_future(begin(bounded)))
    if answer is None:
        return await request.app[IN_FLIGHT].repeat(key)
    # If this client disconnects, the execution goes on: repetitions wait for its outcome.
    return await asyncio.shield(answer)


def begin_once(
    app: web.Application, key: IdempotencyKey, share: str | None, begin: Callable[[IdempotencyKey], _Future]
) -> _Future | None:
    """Begin a request under its idempotency key; None if one with the same key is being executed.

    Args:
        app: the application.
        key: the request's key.
        share: whose share of stored answers the answer counts against, as of `bounded_caller`.
        begin: executes the request. It receives the key, and stores the outcome under it.
    """
    stored = app[STORED_ANSWERS]
    if share is not None and not stored.may_store(share):
        key, share = replace(key, keeps_all=False), None
    return app[IN_FLIGHT].begin(key, begin, None if share is None else partial(_count, stored, share))


def _count(stored: StoredAnswers, share: str, answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled() and answer.exception() is None and is_stored_for_nothing(answer.result()):
        stored.stored(share)


def replayed(reply: Reply) -> Reply:
    """Mark a reply as a repetition, with the header `Idempotency-Replayed`."""
    reply.headers[REPLAYED] = "true"
    return reply


IN_FLIGHT: web.AppKey[InFlight] = web.AppKey("in_flight", InFlight)
