"""Pages made of files of our own: no other host is asked for anything, and nothing runs that is not in a file."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePath

from aiohttp import hdrs, web

from claimsvc.http.server.wire import RESPONSE_HEADERS

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _Page:
    content: bytes
    headers: dict[str, str]


class Pages:
    """Files that are read once.

    Args:
        package: whose folder `static` has them.
        names: the files that are served; what else is there is not.
        policy: the Content-Security-Policy of all of them.
    """

    def __init__(self, package: str, names: Iterable[str], policy: str) -> None:
        place = files(package) / "static"
        self._pages = {name: _page((place / name).read_bytes(), name, policy) for name in names}

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


def _page(content: bytes, name: str, policy: str) -> _Page:
    headers = {
        **RESPONSE_HEADERS,
        # Kept by the browser, but asked about each time: 304 costs little, a stale page costs an afternoon.
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.CONTENT_TYPE: _CONTENT_TYPES[PurePath(name).suffix],
        hdrs.ETAG: f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
    }
    return _Page(content, headers)
