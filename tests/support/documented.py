"""Compares what the service answered with its OpenAPI document: every status must be there.

It watches the client's side, so that it sees every service that a test starts, in this process or in another.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import aiohttp

from claimsvc.http.framework.routing import Route
from claimsvc.http.routes import ROUTES

# What the document's description says of all operations: malformed HTTP, and defects.
_OF_ALL = {400, 408, 414, 421, 431, 500}


def undocumented(method: str, path: str, status: int) -> str | None:
    """What is missing in the document for this answer; None if nothing is, or if the path is not documented."""
    found = _routes_at(path)
    route = next((each for each in found if each.method == ("GET" if method == "HEAD" else method)), None)
    # OPTIONS is that of CORS, which the description tells of all paths.
    if not found or status in _OF_ALL or (route is None and status == 405) or method == "OPTIONS":
        return None
    if route is None:
        return f"{method} {path} was answered {status}, but has no operation"
    statuses = {success.status for success in route.successes} | {problem.status for problem in route.all_problems()}
    return None if status in statuses else f"{method} {route.path} was answered {status}, which is not documented"


@contextmanager
def every_answer_documented() -> Iterator[None]:
    """Fail at the end if a service answered a request with a status that the document lacks."""
    missing: list[str] = []
    ask = aiohttp.ClientSession._request

    async def noted(session: aiohttp.ClientSession, method: str, url: Any, **options: Any) -> aiohttp.ClientResponse:
        response = await ask(session, method, url, **options)
        if response.headers.get("Server") == "claimsvc" and not response.history:
            found = undocumented(response.method, response.url.raw_path, response.status)
            missing.extend([found] if found is not None else [])
        return response

    with patch.object(aiohttp.ClientSession, "_request", noted):
        yield
    assert missing == []


@cache
def _routes_at(path: str) -> tuple[Route, ...]:
    """The documented routes of a path; one without a variable part wins, as in the router."""
    patterns = {route.path: re.sub(r"{\w+}", "[^/]+", route.path) for route in ROUTES if route.documented}
    found = [route for route in ROUTES if route.documented and re.fullmatch(patterns[route.path], path)]
    exact = [route for route in found if route.path == path]
    methods = {route.method for route in exact}
    return (*exact, *(route for route in found if route.path != path and route.method not in methods))
