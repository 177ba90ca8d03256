"""Cross-origin requests of browsers (CORS): which pages may read the API's responses, and what they may send.

Off unless origins are named. Only the API has these headers: the pages and figures for operators never do. Credentials
are no cookies, so `Access-Control-Allow-Credentials` is never sent.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from claimsvc.http.server.wire import IDEMPOTENCY_KEY, RESPONSE_HEADERS, X_REQUEST_ID

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ANY_ORIGIN = "*"
# The API, and the pages that its problems refer to.
_SHARED = ("/api/", "/problems/")
_METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE"
_ALLOWED = ", ".join(
    (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, IDEMPOTENCY_KEY, X_REQUEST_ID, "Prefer", "Last-Event-ID", "traceparent")
)
_EXPOSED = ", ".join(
    (
        *(X_REQUEST_ID, hdrs.LOCATION, hdrs.LINK, hdrs.RETRY_AFTER, hdrs.WWW_AUTHENTICATE, hdrs.CONTENT_DISPOSITION),
        *("RateLimit", "RateLimit-Policy", "Idempotency-Replayed", "Preference-Applied"),
    )
)
# Browsers keep the answer to a preflight for two hours at most.
_MAX_AGE_SECONDS = "7200"
# Without it, a cache could give one origin the response to another.
_VARY: Mapping[str, str] = {hdrs.VARY: hdrs.ORIGIN}


class Cors:
    """The headers for each origin, made beforehand.

    Args:
        origins: such as `https://shop.example`, or `*` for all.
    """

    def __init__(self, origins: Collection[str]) -> None:
        self._is_open = ANY_ORIGIN in origins
        self._headers = {origin: self._headers_for(origin) for origin in origins}

    def _headers_for(self, origin: str) -> Mapping[str, str]:
        headers: Mapping[str, str] = {
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: origin,
            hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: _EXPOSED,
        }
        return headers if self._is_open else {**headers, **_VARY}

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may use the API."""
        return self._is_open or origin in self._headers

    def headers(self, request_headers: CIMultiDictProxy[str]) -> Mapping[str, str]:
        """The headers of the response to a request of the API."""
        if self._is_open:
            return self._headers[ANY_ORIGIN]
        return self._headers.get(request_headers.get(hdrs.ORIGIN, ""), _VARY)

    def headers_at(self, request: web.BaseRequest) -> Mapping[str, str]:
        """The headers of the response to any request; none if it is not of the API."""
        return self.headers(request.headers) if request.path.startswith(_SHARED) else {}

    def preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to a preflight of an origin that is allowed; None for all other requests."""
        if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            return None
        if hdrs.ORIGIN not in request.headers or hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in self.headers_at(request):
            return None
        return web.Response(
            status=204,
            headers={
                **RESPONSE_HEADERS,
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: _METHODS,
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: _ALLOWED,
                hdrs.ACCESS_CONTROL_MAX_AGE: _MAX_AGE_SECONDS,
            },
        )

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers to a response that a handler begins to send itself; a signal of aiohttp."""
        response.headers.update(self.headers_at(request))


def answering_preflights(handler: Handler, cors: Cors) -> Handler:
    """Wrap the application's handler: preflights are answered here, because no route has them."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return cors.preflight(request) or await handler(request)

    return handle
