"""What every message has: headers, limits, and how JSON is written."""

from functools import partial

import orjson
from aiohttp import hdrs
from multidict import istr

MAX_BODY_BYTES = 65_536


# On every answer: it is this moment's truth, it is what it says it is, and it names no version.
RESPONSE_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    hdrs.SERVER: "claimsvc",
}


dump = partial(orjson.dumps, option=orjson.OPT_UTC_Z)


IDEMPOTENCY_KEY = istr("Idempotency-Key")

X_REQUEST_ID = istr("X-Request-ID")

# The spellings that nearly every client uses, so that most requests need no header parsed.
PLAIN_JSON = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
