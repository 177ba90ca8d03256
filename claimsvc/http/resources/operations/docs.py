"""Swagger UI from files of our own: no other host is asked for anything, and the page has no script in its text.

`static/docs` holds what it needs of swagger-ui-dist 5.35.0, unchanged, with its LICENSE and NOTICE; `index.html` and
`start.js` are ours.
"""

from aiohttp import web

from claimsvc.http.framework.pages import Pages

# What Swagger UI needs and no more: its icons are data: URIs, and it sets styles on elements while it draws.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = ("index.html", "start.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")


class Docs(Pages):
    """The documentation's files."""

    def __init__(self) -> None:
        super().__init__("claimsvc.http.resources.operations", _FILES, _POLICY)


DOCS: web.AppKey[Docs] = web.AppKey("docs", Docs)
