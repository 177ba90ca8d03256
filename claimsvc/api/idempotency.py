"""Idempotency-Key: a request that is sent again under its key is answered as it was, and done once.

As in the IETF's draft-ietf-httpapi-idempotency-key-header-07. What was answered is kept in the claim's own transaction
(see `storage.ruled`), so it outlives this process. Here is what only one process can know: that the same request is
being worked on right now.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable

import orjson
from aiohttp import web
from multidict import istr
from pydantic import BaseModel

from claimsvc.api.problems import BAD_REQUEST, KEY_IN_FLIGHT, RefusedError
from claimsvc.api.schemas import ParameterError
from claimsvc.api.services import REQUEST_ID
from claimsvc.domain import KeyReused, Once, Outcome, Replayed
from claimsvc.ports import ClaimAnswer

IDEMPOTENCY_KEY = istr("Idempotency-Key")
REPLAYED = istr("Idempotency-Replayed")
MAX_KEY_LENGTH = 255
# How long a repetition waits for the answer to the first. Longer than a claim takes while all is well.
_WAIT_SECONDS = 2.0
# A string as in RFC 9651, or without its quotation marks as most clients send it.
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])+)"|([!#-+\--~]+)', re.ASCII)
# Who asks while nobody has to say who they are.
ANYBODY = "anybody"


def once_of(request: web.Request, body: BaseModel) -> Once | None:
    """What makes this request the same as another; None without a key.

    Raises:
        RefusedError: the key is not one.
    """
    keys = request.headers.getall(IDEMPOTENCY_KEY, ())
    if not keys:
        return None
    found = _KEY.fullmatch(keys[0].strip()) if len(keys) == 1 else None
    key = found and (found[1] or found[2])
    if not key or len(key) > MAX_KEY_LENGTH:
        error = ParameterError("One string of 1 to 255 visible ASCII characters is needed.", IDEMPOTENCY_KEY)
        raise RefusedError(BAD_REQUEST, errors=[error])
    asked = orjson.dumps([request.method, request.path, body.model_dump(mode="json")], option=orjson.OPT_SORT_KEYS)
    return Once(ANYBODY, key, hashlib.sha256(asked).digest(), request[REQUEST_ID])


class InFlight:
    """The keyed requests that this process works on."""

    def __init__(self) -> None:
        self._under_way: dict[tuple[str, str], tuple[Once, ClaimAnswer]] = {}

    async def join(self, once: Once, begin: Callable[[], ClaimAnswer]) -> Outcome:
        """The outcome of what `begin` begins; or of the same request, if that is under way, within two seconds.

        Raises:
            RefusedError: that takes longer.
        """
        place = once.caller, once.key
        first = self._under_way.get(place)
        if first is None:
            answer = begin()
            self._under_way[place] = once, answer
            answer.add_done_callback(lambda _: self._under_way.pop(place))
            # Whoever asked first may hang up: others wait for the same answer, and it is kept for those who come later.
            return await asyncio.shield(answer)
        asked, answer = first
        if asked.fingerprint != once.fingerprint:
            return KeyReused()
        done, _ = await asyncio.wait([answer], timeout=_WAIT_SECONDS)
        if not done or answer.cancelled():
            raise RefusedError(KEY_IN_FLIGHT)
        outcome = answer.result()
        return outcome if isinstance(outcome, Replayed) else Replayed(outcome, asked.request_id)


IN_FLIGHT: web.AppKey[InFlight] = web.AppKey("in_flight", InFlight)
