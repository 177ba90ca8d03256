"""Headers, limits and JSON encoding that all messages share."""

from functools import partial

import orjson
from aiohttp import hdrs
from multidict import istr

MAX_BODY_BYTES = 65_536
MAX_HEADERS = 100
# aiohttp's error contains only the limit. The limits differ so that it shows which one was exceeded.
MAX_LINE_BYTES = 8190
MAX_HEADER_BYTES = 8191
# Of a request's line and headers together, unless they arrive in one piece. Far beyond those of browsers behind several
# proxies; HAProxy takes 16 KB, nginx 32 KB.
MAX_HEAD_BYTES = 65_536


# The headers of every response. Responses must not be cached or sniffed; `Server` shows no version.
RESPONSE_HEADERS = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    hdrs.SERVER: "claimsvc",
}


dump = partial(orjson.dumps, option=orjson.OPT_UTC_Z)


IDEMPOTENCY_KEY = istr("Idempotency-Key")

X_REQUEST_ID = istr("X-Request-ID")

# The spellings that nearly all clients use: a set lookup instead of parsing the header.
PLAIN_JSON = frozenset({"application/json", "application/json; charset=utf-8", "application/json;charset=utf-8"})
