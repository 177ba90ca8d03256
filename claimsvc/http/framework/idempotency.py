"""Idempotency-Key: a request that is sent again under its key is answered as it was, and done once.

As in the IETF's draft-ietf-httpapi-idempotency-key-header-07. What was answered is kept in the claim's own transaction
(see `storage.ruled`), so it outlives this process. Here is what only one process can know: that the same request is
being worked on right now.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from multidict import istr
from pydantic import BaseModel

from claimsvc.domain import IdempotencyKey, KeyReused, Replayed
from claimsvc.domain.problems import BAD_REQUEST, KEY_IN_FLIGHT
from claimsvc.http.framework.services import CALLER
from claimsvc.http.server.observers import REQUEST_ID
from claimsvc.http.server.problems import ParameterError, RefusedError
from claimsvc.http.server.response import Reply
from claimsvc.http.server.wire import IDEMPOTENCY_KEY

REPLAYED = istr("Idempotency-Replayed")
# How long a repetition waits for the answer to the first. Longer than a claim takes while all is well.
_WAIT_SECONDS = 2.0
# A string as in RFC 9651, or without its quotation marks as most clients send it.
KEY_PATTERN = r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"|([!#-+\--~]{1,255})'
_KEY = re.compile(KEY_PATTERN, re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')


def once_of(request: web.Request, body: BaseModel | None) -> IdempotencyKey | None:
    """What makes this request the same as another; None without a key.

    Raises:
        RefusedError: the key is not one.
    """
    keys = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        return None
    found = _KEY.fullmatch(keys[0].strip()) if len(keys) == 1 else None
    if found is None:
        error = ParameterError("One string of 1 to 255 visible ASCII characters is needed.", IDEMPOTENCY_KEY)
        raise RefusedError(BAD_REQUEST, errors=[error])
    document = None if body is None else body.model_dump(mode="json")
    asked = orjson.dumps([request.method, request.path, document], option=orjson.OPT_SORT_KEYS)
    key = found[2] or _ESCAPED.sub(r"\1", found[1])
    return IdempotencyKey(request[CALLER].name, key, hashlib.sha256(asked).digest(), request[REQUEST_ID])


class InFlight:
    """The keyed requests that this process works on."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str], tuple[IdempotencyKey, asyncio.Future[Any]]] = {}

    async def join(self, once: IdempotencyKey, begin: Callable[[], Awaitable[Any]]) -> Any:
        """The answer to what `begin` begins; or of the same request, if that is under way, within two seconds.

        Raises:
            RefusedError: that takes longer.
        """
        place = once.caller, once.key
        first = self._under_way.get(place)
        if first is None:
            answer: asyncio.Future[Any] = asyncio.ensure_future(begin())
            self._under_way[place] = once, answer
            answer.add_done_callback(lambda _: self._under_way.pop(place))
            # Whoever asked first may hang up: others wait for the same answer, and it is kept for those who come later.
            return await asyncio.shield(answer)
        asked, under_way = first
        if asked.fingerprint != once.fingerprint:
            return KeyReused()
        done, _ = await asyncio.wait([under_way], timeout=_WAIT_SECONDS)
        if not done or under_way.cancelled():
            raise RefusedError(KEY_IN_FLIGHT)
        told = under_way.result()
        return told if isinstance(told, Replayed) else Replayed(told, asked.request_id)


async def once_only(
    request: web.Request, body: BaseModel | None, begin: Callable[[IdempotencyKey | None], Awaitable[Any]]
) -> Any:
    """What `begin` answers, which keeps its answer with what it does; or what was answered under the request's key.

    Raises:
        RefusedError: the key is not one, or the same request is under way.
    """
    once = once_of(request, body)
    return await (begin(None) if once is None else request.app[IN_FLIGHT].join(once, lambda: begin(once)))


def replayed(reply: Reply) -> Reply:
    """The reply, marked as told again."""
    reply.headers[REPLAYED] = "true"
    return reply


IN_FLIGHT: web.AppKey[InFlight] = web.AppKey("in_flight", InFlight)
