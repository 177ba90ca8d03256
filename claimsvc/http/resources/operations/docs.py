"""Swagger UI, served from this package: nothing is loaded from other hosts, and the page has no inline scripts.

`static` holds the files of swagger-ui-dist 5.35.0 that are needed, unchanged, with LICENSE and NOTICE; `index.html`,
`docs.css` and `start.js` belong to this project.
"""

from aiohttp import web

from claimsvc.http.framework.pages import Pages

# The least that Swagger UI needs: its icons are data: URIs, and it sets inline styles.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = ("index.html", "start.js", "swagger-ui-bundle.js", "swagger-ui.css", "docs.css", "favicon-32x32.png")


class Docs(Pages):
    """The files of Swagger UI."""

    def __init__(self) -> None:
        super().__init__("claimsvc.http.resources.operations", _FILES, _POLICY)


DOCS: web.AppKey[Docs] = web.AppKey("docs", Docs)
