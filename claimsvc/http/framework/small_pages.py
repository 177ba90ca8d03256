"""The frame of small pages for people. They look like the console, in light and dark.

Their style and script are in the page, as each is one answer, and the port for operators has no folder of files but the
console's. Their policy allows these alone.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files

from aiohttp import hdrs, web

from claimsvc.http.server.wire import RESPONSE_HEADERS

_PAGE = """<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <meta name="color-scheme" content="light dark">
{head}    <title>{title}</title>
    <style>{style}</style>
  </head>
  <body>
    <main>
{body}
    </main>
{script}  </body>
</html>
"""


def small_page(
    title: str, body: str, *, status: int = 200, refresh_seconds: int = 0, script: str = "", is_private: bool = False
) -> web.Response:
    """A page.

    Args:
        title: of the page.
        body: its HTML, in which everything is escaped.
        status: the HTTP status.
        refresh_seconds: after how long it is read again where there is no JavaScript; 0 for never.
        script: what runs where there is. It may ask this service.
        is_private: whether no copy of it is to be kept.
    """
    style, policy = _style()
    if script:
        policy = f"script-src 'sha256-{_digest(script)}'; connect-src 'self'; {policy}"
    refresh = f'<noscript><meta http-equiv="refresh" content="{refresh_seconds}"></noscript>'
    page = _PAGE.format(
        head=f"    {refresh}\n" if refresh_seconds else "",
        title=escape(title),
        style=style,
        body=body,
        script=f"    <script>{script}</script>\n" if script else "",
    )
    headers = {
        **RESPONSE_HEADERS,
        hdrs.CACHE_CONTROL: "no-store" if is_private else "no-cache",
        "Content-Security-Policy": f"default-src 'none'; {policy}",
        "Referrer-Policy": "no-referrer",
    }
    return web.Response(text=page, content_type="text/html", status=status, headers=headers)


@cache
def _style() -> tuple[str, str]:
    """The style of all pages, and the policy that allows it alone."""
    style = (files("claimsvc.http.framework") / "static" / "pages.css").read_text(encoding="utf-8")
    rest = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return style, f"style-src 'sha256-{_digest(style)}'; {rest}"


@cache
def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()
