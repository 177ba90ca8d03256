"""What a client sends is understood or refused: no route ignores a query parameter or a body."""

import asyncio
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from claimsvc.http.framework.routing import Route
from claimsvc.http.framework.validation import Nothing, validate_query
from claimsvc.http.resources.codes.schemas import CountsQuery
from claimsvc.http.routes import ROUTES
from claimsvc.http.server.problems import RefusedError
from tests.http.memory_services import Service
from tests.support.admin import ADMIN

DOCUMENTED = [route for route in ROUTES if route.documented]
WITHOUT_BODY = [route for route in DOCUMENTED if route.reads_body and route.body_is_optional]
_VALUES = {"name": "plenty", "coupon_name": "plenty", "code": "C-1", "slug": "sold-out", "user_id": "ann"}
_CLAIM_ID = "00000000-0000-7000-8000-000000000000"


def path_of(route: Route) -> str:
    return route.path.format(id="ann" if route.path.startswith("/api/users") else _CLAIM_ID, **_VALUES)


async def ask(service: Service, route: Route, query: str = "", **options: Any) -> tuple[int, Any]:
    headers = {**ADMIN, **options.pop("headers", {})}
    url = URL(f"{service.url}{path_of(route)}{query}", encoded=True)
    async with service.client.request(route.method, url, headers=headers, **options) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: f"{route.method} {route.path}")
async def test_an_unknown_query_parameter_is_refused_by_name(service: Service, route: Route) -> None:
    for query in ("?page=2", "?page", "?page=2&page=3", "?%70age="):
        status, problem = await ask(service, route, query)
        assert (status, problem["type"]) == (400, "/problems/bad-request")
        assert [error["parameter"] for error in problem["errors"]] == ["page"]


@pytest.mark.parametrize("route", WITHOUT_BODY, ids=lambda route: f"{route.method} {route.path}")
async def test_a_body_that_is_not_understood_is_refused_where_none_is_needed(service: Service, route: Route) -> None:
    as_json: dict[str, Any] = {"headers": {"Content-Type": "application/json"}}
    for body in (b"not json", b"[]", b"null", b'"reason"', b"{", b'{"a": 1, "a": 1}'):
        status, problem = await ask(service, route, data=body, **as_json)
        assert (status, problem["type"]) == (400, "/problems/bad-request"), body
    status, problem = await ask(service, route, json={"page": 2})
    assert (status, problem["errors"][0]["pointer"]) == (400, "#/page")
    status, problem = await ask(service, route, data=b"user_id=ann", headers={"Content-Type": "text/plain"})
    assert (status, problem["type"]) == (415, "/problems/unsupported-media-type")
    expected = await ask(service, route)
    assert expected[0] in (200, 404)
    empty: list[dict[str, Any]] = [as_json, {"json": {}}, {"data": b"", **as_json}]
    for options in empty:
        assert (await ask(service, route, **options))[0] in (200, 404), options


def test_every_operation_without_a_body_of_its_own_is_among_them() -> None:
    assert {f"{route.method} {route.path}" for route in WITHOUT_BODY} >= {
        "POST /api/codes/{code}/redeem",
        "POST /api/coupons/{name}/archive",
        "POST /api/claims/{id}/confirm",
        "DELETE /api/users/{id}",
        "DELETE /api/coupons/{name}/allow-list",
    }


class Asked:
    """A request as far as its query is looked at."""

    def __init__(self, query: str) -> None:
        self.rel_url = URL(f"/api/codes?{query}", encoded=True)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=5)), min_size=1, max_size=3))
@example([("type", "a"), ("Type", "a")])
def test_a_query_is_accepted_only_if_all_of_its_names_are_known(pairs: list[tuple[str, str]]) -> None:
    asked: Any = Asked(urlencode(pairs, errors="surrogatepass"))
    with pytest.raises(RefusedError):
        validate_query(Nothing, asked)
    if any(name != "type" for name, _ in pairs):
        with pytest.raises(RefusedError):
            validate_query(CountsQuery, asked)


async def test_many_at_once_are_each_answered_for_what_they_sent(service: Service) -> None:
    """A body that is left unread must not become the next request of its connection."""
    [archive] = [route for route in ROUTES if route.operation_id == "archive_coupon"]
    told = await asyncio.gather(
        *(ask(service, archive, json={"page": 2} if number % 2 else None) for number in range(50))
    )
    assert [status for status, _ in told] == [200, 400] * 25
