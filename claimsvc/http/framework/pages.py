"""Static pages. Their policy allows only files of this service: nothing from other hosts, no inline scripts."""

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
    """Static files, read into memory at start.

    Args:
        package: the package with the folder `static`.
        names: the files in it that are served.
        policy: the files' Content-Security-Policy.
    """

    def __init__(self, package: str, names: Iterable[str], policy: str) -> None:
        place = files(package) / "static"
        self._pages = {name: _page((place / name).read_bytes(), name, policy) for name in names}

    def respond(self, request: web.Request, name: str) -> web.Response:
        """The response with a file; 304 if the client has its current version.

        Raises:
            web.HTTPNotFound: no such file is served.
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
        # The browser caches the file, but revalidates it each time, so that no page is stale after an upgrade.
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.CONTENT_TYPE: _CONTENT_TYPES[PurePath(name).suffix],
        hdrs.ETAG: f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
    }
    return _Page(content, headers)
