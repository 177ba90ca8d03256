"""Swagger UI from files of our own: no other host is asked for anything, and the page has no script in its text.

`static/docs` holds what it needs of swagger-ui-dist 5.35.0, unchanged, with its LICENSE and NOTICE; `index.html` and
`start.js` are ours.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import hdrs, web

from claimsvc.api.schemas import RESPONSE_HEADERS

# What Swagger UI needs and no more: its icons are data: URIs, and it sets styles on elements while it draws.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CONTENT_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}


@dataclass(frozen=True, slots=True)
class _Page:
    content: bytes
    headers: dict[str, str]


class Docs:
    """The documentation's files, read once."""

    def __init__(self) -> None:
        folder = files("claimsvc.api") / "static" / "docs"
        self._pages = {name: self._page((folder / name).read_bytes(), kind) for name, kind in _CONTENT_TYPES.items()}

    @staticmethod
    def _page(content: bytes, content_type: str) -> _Page:
        headers = {
            **RESPONSE_HEADERS,
            # Kept by the browser, but asked about each time: 304 costs little, a stale page costs an afternoon.
            hdrs.CACHE_CONTROL: "no-cache",
            hdrs.CONTENT_TYPE: content_type,
            hdrs.ETAG: f'"{hashlib.sha256(content).hexdigest()[:32]}"',
            "Content-Security-Policy": _POLICY,
            "Referrer-Policy": "no-referrer",
        }
        return _Page(content, headers)

    def respond(self, request: web.Request, name: str) -> web.Response:
        """The file of that name; 304 if the client has it.

        Raises:
            web.HTTPNotFound: there is none.
        """
        page = self._pages.get(name)
        if page is None:
            raise web.HTTPNotFound
        if request.headers.get(hdrs.IF_NONE_MATCH) == page.headers[hdrs.ETAG]:
            return web.Response(status=304, headers=page.headers)
        return web.Response(body=page.content, headers=page.headers)


DOCS: web.AppKey[Docs] = web.AppKey("docs", Docs)
