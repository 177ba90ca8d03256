"""What this service parses of a head itself: `Content-Type`, `X-Forwarded-For`, the path; and that aiohttp does not."""

import ast
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from claimsvc import http
from claimsvc.http.framework.content_type import ContentType, parse
from claimsvc.http.routes import ROUTES
from claimsvc.http.server.addresses import client_address
from tests.http.memory_services import Service
from tests.support.admin import ADMIN

# What parses a header, or reads the body as the header says, with aiohttp's code instead of this service's.
_OF_AIOHTTP = {
    *("content_type", "charset", "cookies", "forwarded", "http_range", "if_match", "if_none_match", "if_range"),
    *("if_modified_since", "if_unmodified_since", "json", "multipart", "post", "text", "url"),
}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("application/json", ("application/json", None)),
        (" Application/JSON ;Charset=UTF-8 ", ("application/json", "utf-8")),
        ('text/csv; header=present; charset="utf-8"', ("text/csv", "utf-8")),
        ('text/csv; name="a;charset=latin1\\""; charset=utf-8', ("text/csv", "utf-8")),
        ('text/csv; charset="ut\\f-8"', ("text/csv", "utf-8")),
        ("application/json;", ("application/json", None)),
        ("application/json;; charset = utf-8 ;", ("application/json", "utf-8")),
        ("application/json; utf-8", ("application/json", None)),
        ('text/plain; charset=""', ("text/plain", "")),
        ("", ("", None)),
        ("json", ("", None)),
        ("application/", ("", None)),
        ("application/json utf-8", ("", None)),
        ("application/json, text/csv", ("", None)),
        ("application/json; charset=", ("", None)),
        ('application/json; charset="utf-8', ("", None)),
        ("text/csv; charset=utf-8; charset=utf-16", ("", None)),
        ("text/csv(a comment)", ("", None)),
        ("application/json" + ";" * 8000, ("", None)),
        ("application/json" + "(" * 300, ("", None)),
    ],
)
def test_a_header_is_understood_or_refused(header: str, expected: tuple[str, str | None]) -> None:
    assert parse(header) == ContentType(*expected)


@given(st.text(st.characters(max_codepoint=255)) | st.text(' \t;="\\/(,a', max_size=300))
def test_every_text_is_a_content_type_or_none(text: str) -> None:
    for header in (text, f"text/csv{text}", f"text/csv;charset={text}"):
        found = parse(header)
        assert found.media_type == found.media_type.lower().strip()
        assert found.media_type.count("/") == (1 if found.media_type else 0)


@pytest.mark.parametrize("method_and_path", [("POST", "/api/coupons/claim"), ("PUT", "/api/coupons/plenty/allow-list")])
@pytest.mark.parametrize("more", [";" * 8000, "(" * 300, "(" * 7000, '"' * 7000, ";a" * 3000])
async def test_a_hostile_header_is_an_unsupported_media_type(
    service: Service, method_and_path: tuple[str, str], more: str
) -> None:
    method, path = method_and_path
    for kind in ("application/json", "text/csv"):
        headers = {**ADMIN, "Content-Type": kind + more}
        async with service.client.request(method, service.url + path, data=b"{}", headers=headers) as response:
            assert response.status == 415
    assert await service.is_healthy()


@pytest.mark.parametrize("header", ["application/json; utf-8", "Application/Json;charset=UTF-8", "application/a+json;"])
async def test_usual_and_odd_spellings_are_read(service: Service, header: str) -> None:
    body = b'{"user_id": "ann", "coupon_name": "plenty"}'
    url = f"{service.url}/api/coupons/claim"
    async with service.client.post(url, data=body, headers={"Content-Type": header}) as response:
        assert response.status == 201


def test_no_header_is_parsed_by_aiohttp() -> None:
    """Its parsers are those of the standard library, which take quadratic time, or raise what nobody expects."""
    [root] = http.__path__
    found = [
        f"{path.name}:{node.lineno} {node.attr}"
        for path in sorted(Path(root).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in _OF_AIOHTTP and ast.unparse(node.value).endswith("request")
    ]
    assert found == []


async def test_a_path_with_more_parts_than_any_route_is_not_found(service: Service) -> None:
    """aiohttp's router takes quadratic time for it. A query may have as many slashes as it likes."""
    assert max(route.path.count("/") for route in ROUTES) < 10
    for path in ("/" * 8000, "/api/coupons/plenty" + "/claims" * 1000, "/a?" + "/" * 8000):
        async with service.client.get(URL(service.url + path, encoded=True)) as response:
            assert (response.status, (await response.json(content_type=None))["type"]) == (404, "/problems/not-found")
    async with service.client.get(f"{service.url}/api/coupons?search={'/' * 100}") as response:
        assert response.status == 400
    async with service.client.get(f"{service.url}/problems/sold-out?{'/' * 100}") as response:
        assert (response.status, (await response.json())["type"]) == (400, "/problems/bad-request")  # a route was found


def test_only_the_last_proxies_of_a_long_row_are_looked_at() -> None:
    trusted = [ip_network("10.0.0.0/8")]
    assert client_address("10.0.0.1", ["192.0.2.1" + ", 10.0.0.2" * 5], trusted) == "192.0.2.1"
    assert client_address("10.0.0.1", ["192.0.2.1" + ", 10.0.0.2" * 1000, "10.0.0.3"], trusted) == "10.0.0.2"
