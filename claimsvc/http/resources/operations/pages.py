"""Small pages for people: what runs here, and what a problem means."""

import re
from html import escape

from aiohttp import web

from claimsvc.domain.problems import Problem
from claimsvc.http.framework.small_pages import small_page

# A host that is shown in an example command; any other name is not.
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")
_CLAIM = """curl -X POST http://{host}/api/coupons/claim -H 'Content-Type: application/json' \\
  -d '{{"user_id": "user-1", "coupon_name": "demo"}}'"""

_OTHER_COUPONS = (
    "      <p><code>make run</code> creates the coupon <code>demo</code>; elsewhere, name one of "
    '<a href="/api/coupons">/api/coupons</a>.</p>'
)


def home(host: str, *, has_api: bool, has_operators_pages: bool) -> web.Response:
    """The page `/`: what runs here, and where to go.

    Args:
        host: as the request names it.
        has_api: whether this port has the API.
        has_operators_pages: whether this port has the pages for operators.
    """
    links = []
    if has_api:
        links.append(("/docs", "API", "read every operation, and try it here; programs read /openapi.json"))
    if has_operators_pages:
        links.append(("/console", "Console", "what is going on now, for whoever is on call"))
        links.append(("/readyz?verbose", "Readiness", "whether it can take claims, and if not, why"))
        links.append(("/metrics", "Metrics", "for Prometheus"))
    else:
        links.append(("/readyz", "Readiness", "whether it can take claims"))
    if has_api:
        links.append(("/problems/sold-out", "Problems", "every error names a page that explains it, such as this one"))
    told = "".join(
        f'      <li><a href="{escape(path)}">{name}</a><span>{escape(text)}</span></li>\n' for path, name, text in links
    )
    body = [
        "      <h1>claimsvc</h1>",
        "      <p>Here runs a service that gives out coupons of limited stock: each unit once, however many ask.</p>",
        f'      <ul class="links">\n{told}      </ul>',
    ]
    if has_api:
        shown = _CLAIM.format(host=host if _HOST.fullmatch(host) else "HOST")
        body += [
            "      <h2>Claim a unit</h2>",
            f"      <pre><code>{escape(shown, quote=False)}</code></pre>",
            _OTHER_COUPONS,
        ]
    if not has_operators_pages:
        body.append("      <p>The console and the metrics are on the port for operators.</p>")
    return small_page("claimsvc", "\n".join(body))


def explanation(problem: Problem) -> web.Response:
    """The page of a problem type."""
    return small_page(
        f"{problem.title} - claimsvc",
        f'      <p class="status">Problem <code>{escape(problem.slug)}</code>, status {problem.status}</p>\n'
        f"      <h1>{escape(problem.title)}</h1>\n"
        f"      <p>{escape(problem.meaning)}</p>\n"
        f"      <h2>What to do</h2>\n"
        f"      <p>{escape(problem.advice)}</p>\n"
        '      <p class="back"><a href="/docs">The API</a></p>',
    )
