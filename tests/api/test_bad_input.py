"""Every row of FAULTS' bad-input table that the HTTP layer answers: its status, a problem, and no harm done."""

import asyncio
import gzip
import json
import random
import string
from dataclasses import dataclass
from typing import Any

import pytest

from claimsvc.api.routes import ROUTES
from claimsvc.domain import MAX_AMOUNT
from tests.api.memory import ADMIN, Service

JSON = "application/json"
CLAIM = b'{"user_id": "ann", "coupon_name": "plenty"}'


@dataclass(frozen=True)
class Answer:
    """What came back over a socket, until the server closed it."""

    status: int
    headers: dict[str, str]
    problem: dict[str, Any]


async def send(service: Service, *parts: bytes) -> Answer:
    """Send bytes as they are, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(5):
            raw = await reader.read()
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status_line.split()[1]), headers, json.loads(body))


async def post(
    service: Service,
    body: bytes,
    *,
    path: str = "/api/coupons/claim",
    content_type: str | None = JSON,
    **headers: str,
) -> Answer:
    """Post over a connection of its own, with exactly these headers."""
    lines = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **ADMIN}
    if content_type is not None:
        lines["Content-Type"] = content_type
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return await send(service, f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)


async def get(service: Service, target: bytes) -> Answer:
    return await send(service, b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)


async def check(service: Service, answer: Answer, status: int, slug: str) -> None:
    """The right problem, in the right form, told once to the log and the metrics; and the service works on."""
    assert (answer.status, answer.problem.get("type")) == (status, f"/problems/{slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.problem["request_id"]
    assert answer.problem["status"] == status
    assert answer.problem["title"]
    text = json.dumps(answer.problem)
    assert len(text) < 5000
    for leak in ("Traceback", 'File "', "psycopg", "SELECT", "Error(", "aiohttp", "pydantic"):
        assert leak not in text
    requests = [line for line in service.lines if line["event"] == "request"]
    assert len(requests) == len(service.lines) == len(service.observations.seen) == 1
    assert requests[0]["status"] == status
    assert requests[0]["request_id"] == answer.problem["request_id"]
    assert "exc_info" not in requests[0]
    assert await service.is_healthy()


NOT_JSON_OBJECTS = {
    "empty body": b"",
    "truncated JSON": CLAIM[:-5],
    "byte order mark": b"\xef\xbb\xbf" + CLAIM,
    "UTF-16": CLAIM.decode().encode("utf-16"),
    "bad UTF-8": b'{"user_id": "\xff", "coupon_name": "plenty"}',
    "overlong UTF-8": b'{"user_id": "\xc0\xaf", "coupon_name": "plenty"}',
    "surrogate in UTF-8": b'{"user_id": "\xed\xa0\x80", "coupon_name": "plenty"}',
    "NaN": b'{"user_id": NaN, "coupon_name": "plenty"}',
    "Infinity": b'{"user_id": -Infinity, "coupon_name": "plenty"}',
    "1e999": b'{"user_id": 1e999, "coupon_name": "plenty"}',
    "number of 5,000 digits": b'{"user_id": ' + b"9" * 5000 + b', "coupon_name": "plenty"}',
    "nested as deep as fits": b'{"user_id": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "nested 100,000 deep": b"[" * 100_000,
    "nested 100,000 deep, and closed": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "duplicate key": b'{"user_id": "ann", "user_id": "bob", "coupon_name": "plenty"}',
    "duplicate key, escaped": b'{"user_id": "ann", "user\\u005fid": "bob", "coupon_name": "plenty"}',
    "duplicate key inside": b'{"user_id": {"a": 1, "a": 2}, "coupon_name": "plenty"}',
    "duplicate key that is not fit to be shown": b'{"\\u0000\\ud800": 1, "\\u0000\\ud800": 2}',
    "array": b"[" + CLAIM + b"]",
    "string": b'"ann"',
    "null": b"null",
    "number": b"5",
    "two documents": CLAIM + CLAIM,
    "single quotes": b"{'user_id': 'ann'}",
    "comment": b"/* */" + CLAIM,
    "trailing comma": CLAIM[:-1] + b",}",
    "control character in a string": b'{"user_id": "a\nb", "coupon_name": "plenty"}',
}


@pytest.mark.parametrize("body", NOT_JSON_OBJECTS.values(), ids=NOT_JSON_OBJECTS.keys())
async def test_what_is_no_json_object_is_refused(service: Service, body: bytes) -> None:
    answer = await post(service, body)
    await check(service, answer, 400, "bad-request")
    (error,) = answer.problem["errors"]
    assert error["pointer"].startswith("#")
    assert error["detail"]


AMOUNTS = {
    "null": "null",
    "true": "true",
    "1.5": "1.5",
    '"5"': '"5"',
    "0": "0",
    "-1": "-1",
    "-0.0": "-0.0",
    "2^31": str(MAX_AMOUNT + 1),
    "a number that rounds to 1": "0." + "9" * 30,
    "1e300": "1e300",
    "10^20": str(10**20),
    "array": "[1]",
    "object": "{}",
}


@pytest.mark.parametrize("amount", AMOUNTS.values(), ids=AMOUNTS.keys())
async def test_what_is_no_amount_is_refused(service: Service, amount: str) -> None:
    body = f'{{"name": "new", "amount": {amount}}}'.encode()
    answer = await post(service, body, path="/api/coupons")
    await check(service, answer, 400, "bad-request")
    assert [error["pointer"] for error in answer.problem["errors"]] == ["#/amount"]
    assert await service.store.coupon("new", claimants=1) is None


NAMES: dict[str, Any] = {
    "empty": "",
    "blank": " ",
    "too long": "a" * 256,
    "dots only": "..",
    "slash": "a/b",
    "NUL": "a\x00b",
    "line break": "a\r\nb",
    "line break at the end": "a\n",
    "escape sequence": "\x1b[31m",
    "DEL": "a\x7f",
    "zero-width": "a\u200bb",
    "right-to-left override": "a\u202eb",
    "not ASCII": "é",
    "full-width digits": "\uff11",
    "emoji": "\U0001f600",
    "null": None,
    "number": 5,
    "array": ["a"],
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
async def test_what_is_no_coupon_name_is_refused(service: Service, name: Any) -> None:
    answer = await post(service, json.dumps({"name": name, "amount": 5}).encode(), path="/api/coupons")
    await check(service, answer, 400, "bad-request")
    assert {error["pointer"] for error in answer.problem["errors"]} == {"#/name"}


@pytest.mark.parametrize("field", ["user_id", "coupon_name"])
@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "a" * 256, "a\x00", "\ud800", "a\n", "a\u200b", "\u00e9", None, True, 5, {}],
    ids=["empty", "blank", "space", "long", "NUL", "surrogate", "break", "zero-width", "e", "null", "true", "5", "{}"],
)
async def test_what_is_no_claim_is_refused(service: Service, field: str, value: Any) -> None:
    body = {"user_id": "ann", "coupon_name": "plenty", field: value}
    answer = await post(service, json.dumps(body).encode())
    await check(service, answer, 400, "bad-request")
    assert {error["pointer"] for error in answer.problem["errors"]} == {f"#/{field}"}


@pytest.mark.parametrize(
    ("key", "pointer"),
    [
        ("extra", "#/extra"),
        ("a/b~c", "#/a~1b~0c"),
        ("a b", "#/a%20b"),
        ("\ud800", "#"),
        ("\x1b", "#"),
        ("k" * 999, "#"),
    ],
    ids=["plain", "escaped", "encoded", "surrogate", "control", "long"],
)
async def test_an_unknown_field_is_refused_and_shown_if_it_is_fit_to_be(
    service: Service, key: str, pointer: str
) -> None:
    body = {"user_id": "ann", "coupon_name": "plenty", key: 1}
    answer = await post(service, json.dumps(body).encode())
    await check(service, answer, 400, "bad-request")
    assert [error["pointer"] for error in answer.problem["errors"]] == [pointer]


async def test_a_thousand_mistakes_are_answered_with_a_few(service: Service) -> None:
    answer = await post(service, json.dumps({f"field-{number}": 1 for number in range(3000)}).encode())
    await check(service, answer, 400, "bad-request")


PATH_NAMES = [
    *(b"%00", b"a%2Fb", b"%2F", b"a%0D%0AX:%20y", b"%E2%80%8B", b"%FF", b"%ED%A0%80", b"%zz", b"%", b"a%20b"),
    *(b"%7Bname%7D", b"..", b".", b"%2e%2e", b"a" * 256, b"%F0%9F%98%80", b"a;b", b"a%3Fb", b"%25"),
]


@pytest.mark.parametrize("name", PATH_NAMES, ids=lambda name: name[:12].decode())
@pytest.mark.parametrize("path", [b"/api/coupons/%b", b"/api/coupons/%b/claims"])
async def test_what_is_no_name_in_a_path_is_refused(service: Service, path: bytes, name: bytes) -> None:
    answer = await get(service, path % name)
    await check(service, answer, 400, "bad-request")
    assert answer.problem["errors"][0]["parameter"] == "name"


@pytest.mark.parametrize(
    "claim_id",
    [
        *(b"1", b"%00", b"{00000000-0000-0000-0000-000000000000}", b"urn:uuid:00000000-0000-0000-0000-000000000000"),
        *(b"00000000000000000000000000000000", b"00000000-0000-0000-0000-00000000000g", b"a" * 4000),
    ],
    ids=lambda claim_id: claim_id[:12].decode(),
)
async def test_what_is_no_claim_id_is_refused(service: Service, claim_id: bytes) -> None:
    answer = await get(service, b"/api/claims/" + claim_id)
    await check(service, answer, 400, "bad-request")
    assert answer.problem["errors"][0]["parameter"] == "id"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        (b"limit=0", "limit"),
        (b"limit=101", "limit"),
        (b"limit=-1", "limit"),
        (b"limit=", "limit"),
        (b"limit=5.0", "limit"),
        (b"limit=1_0", "limit"),
        (b"limit=%2010", "limit"),
        (b"limit=%EF%BC%91", "limit"),
        (b"limit=" + b"9" * 5000, "limit"),
        (b"limit=1&limit=1", "limit"),
        (b"cursor=garbage", "cursor"),
        (b"cursor=", "cursor"),
        (b"cursor=2e", "cursor"),
        (b"cursor=00", "cursor"),
        (b"cursor=7", "cursor"),
        (b"search=%00", "search"),
        (b"search=%25", "search"),
        (b"search=" + b"a" * 256, "search"),
        (b"search=%FF", "search"),
        (b"nonsense=1", "nonsense"),
        (b"%00=1", ""),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else "",
)
async def test_what_is_no_query_is_refused(service: Service, query: bytes, parameter: str) -> None:
    answer = await get(service, b"/api/coupons?" + query)
    await check(service, answer, 400, "bad-request")
    assert answer.problem["errors"][0]["parameter"] == parameter


@pytest.mark.parametrize("cursor", ["garbage", "0" * 47, "0" * 49, "f" * 48, "0" * 47 + "g", "%00" * 48])
async def test_a_cursor_of_claims_that_is_none_is_refused(service: Service, cursor: str) -> None:
    answer = await get(service, f"/api/coupons/plenty/claims?cursor={cursor}".encode())
    await check(service, answer, 400, "bad-request")


CLAIM_HEAD = b"POST /api/coupons/claim HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
MALFORMED = {
    "conflicting Content-Length": CLAIM_HEAD + b"Content-Length: 43\r\nContent-Length: 44\r\n\r\n" + CLAIM,
    "listed Content-Length": CLAIM_HEAD + b"Content-Length: 43, 43\r\n\r\n" + CLAIM,
    "negative Content-Length": CLAIM_HEAD + b"Content-Length: -1\r\n\r\n" + CLAIM,
    "signed Content-Length": CLAIM_HEAD + b"Content-Length: +43\r\n\r\n" + CLAIM,
    "immense Content-Length": CLAIM_HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + CLAIM,
    "CL + TE": CLAIM_HEAD + b"Content-Length: 43\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE + CL": CLAIM_HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 43\r\n\r\n0\r\n\r\n",
    "unknown Transfer-Encoding": CLAIM_HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "malformed chunk": CLAIM_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "missing Host": b"GET /livez HTTP/1.1\r\n\r\n",
    "doubled Host": b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "HTTP/1.2": b"GET /livez HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /livez HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "unknown method": b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "space before a colon": b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
    "folded header": b"GET /livez HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
    "bare line feeds": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "port out of range": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken IPv6 address": b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_http_is_refused(service: Service, request_bytes: bytes) -> None:
    await check(service, await send(service, request_bytes), 400, "bad-request")


async def test_a_chunk_that_turns_out_malformed_is_refused_at_once(service: Service) -> None:
    """The request is waiting for its body already when the error is found; it is not left to its time limit."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(CLAIM_HEAD + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"zz\r\n")
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert [line["status"] for line in service.lines] == [400]
    assert await service.is_healthy()


async def test_a_body_that_breaks_off_is_refused(service: Service) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(CLAIM_HEAD + b"Content-Length: 43\r\n\r\n" + CLAIM[:10])
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await service.is_healthy()
    assert (await service.store.coupon("plenty", claimants=10)).claimed_by != ("ann",)  # type: ignore[union-attr]


NOT_JSON = ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
OTHER_CHARSETS = ["utf-16", "latin-1", "nonsense", "utf-7"]


@pytest.mark.parametrize(
    "content_type",
    [None, "", "json", "application/", "*/*", *NOT_JSON, *(f"{JSON}; charset={each}" for each in OTHER_CHARSETS)],
)
async def test_what_is_not_json_in_utf_8_is_refused(service: Service, content_type: str | None) -> None:
    await check(service, await post(service, CLAIM, content_type=content_type), 415, "unsupported-media-type")


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "compress", "nonsense", "gzip, gzip", ""])
async def test_an_unknown_encoding_is_refused(service: Service, encoding: str) -> None:
    answer = await post(service, CLAIM, Content_Encoding=encoding)
    await check(service, answer, 415, "unsupported-media-type")
    assert answer.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "content_type",
    [JSON, "Application/JSON", f"{JSON};charset=UTF-8", f'{JSON}; charset="utf-8"', "application/merge-patch+json"],
)
async def test_json_in_utf_8_is_taken_however_it_is_spelt(service: Service, content_type: str) -> None:
    assert (await post(service, CLAIM, content_type=content_type)).status == 201


async def test_a_gzip_body_is_taken(service: Service) -> None:
    assert (await post(service, gzip.compress(CLAIM), Content_Encoding="gzip")).status == 201


@pytest.mark.parametrize(
    "body",
    [b"", CLAIM, gzip.compress(CLAIM)[:-3], gzip.compress(CLAIM) + b"more", gzip.compress(CLAIM) * 2],
    ids=["empty", "plain", "truncated", "followed by more", "two members"],
)
async def test_a_broken_gzip_body_is_refused(service: Service, body: bytes) -> None:
    await check(service, await post(service, body, Content_Encoding="gzip"), 400, "bad-request")


OVER = b'{"user_id": "' + b"a" * 65_536 + b'"}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (OVER, {}),
        (b" " * 65_537, {}),
        (gzip.compress(OVER), {"Content_Encoding": "gzip"}),
        (gzip.compress(b" " * 50_000_000), {"Content_Encoding": "gzip"}),
        (b"a" * 5_000_000, {}),
    ],
    ids=["over by a little", "blanks", "over once inflated", "gzip bomb", "5 MB"],
)
async def test_a_body_over_the_limit_is_refused(service: Service, body: bytes, headers: dict[str, str]) -> None:
    await check(service, await post(service, body, **headers), 413, "body-too-large")


async def test_a_body_is_refused_by_its_declared_length(service: Service) -> None:
    answer = await send(service, CLAIM_HEAD + b"Content-Length: 65537\r\n\r\n")
    await check(service, answer, 413, "body-too-large")


async def test_a_large_body_is_refused_before_it_is_asked_for(service: Service) -> None:
    answer = await send(service, CLAIM_HEAD + b"Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n")
    await check(service, answer, 413, "body-too-large")


async def test_a_chunked_body_over_the_limit_is_refused(service: Service) -> None:
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    head = CLAIM_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    await check(service, await send(service, head, *([chunk] * 17), b"0\r\n\r\n"), 413, "body-too-large")


async def test_a_body_of_exactly_the_limit_is_taken(service: Service) -> None:
    assert (await post(service, CLAIM + b" " * (65_536 - len(CLAIM)))).status == 201


@pytest.mark.parametrize(
    "headers", [b"Content-Length: 43\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["announced", "chunked"]
)
async def test_a_body_that_stalls_is_not_waited_for(service: Service, headers: bytes) -> None:
    answer = await send(service, CLAIM_HEAD + headers + b"\r\n")
    await check(service, answer, 408, "request-timeout")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("start", [b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", b"G"])
async def test_headers_that_stall_are_not_waited_for(service: Service, start: bytes) -> None:
    await check(service, await send(service, start), 408, "request-timeout")


async def test_headers_that_stall_after_a_good_request_are_not_waited_for(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ")
    assert b" 408 " in await reader.read()
    writer.close()


async def test_requests_behind_a_declined_upgrade_are_answered(service: Service) -> None:
    """aiohttp keeps what follows an upgrade aside and reads it later, by another way than what follows a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    upgrade = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    writer.write(upgrade + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li")
    for _ in range(2):
        await reader.readuntil(b'{"status":"ok"}')
    writer.write(b"vez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    assert [line["status"] for line in service.lines] == [200] * 3


async def test_a_connection_whose_body_was_not_wanted_may_rest(service: Service) -> None:
    """A body that is thrown away is not taken for a head that stalls."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /no/such HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
    await reader.readuntil(b"}")
    writer.write(b"67890")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.5)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    assert [line["status"] for line in service.lines] == [404, 200]


async def test_a_connection_that_says_nothing_is_closed_without_an_answer(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    assert await reader.read() == b""
    writer.close()
    assert service.lines == []


@pytest.mark.parametrize(
    "headers",
    [b"A: " + b"b" * 9000 + b"\r\n", b"A" * 9000 + b": b\r\n", b"A: b\r\n" * 101, b"A: " + b"b" * 500_000],
    ids=["large value", "large name", "too many", "without end"],
)
async def test_headers_that_are_too_large_are_refused(service: Service, headers: bytes) -> None:
    answer = await send(service, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n")
    await check(service, answer, 431, "headers-too-large")


async def test_a_request_line_that_is_too_long_is_refused(service: Service) -> None:
    await check(service, await get(service, b"/" + b"a" * 9000), 414, "uri-too-long")


@pytest.mark.parametrize("expectation", ["nonsense", "é"])
async def test_an_unknown_expectation_is_refused(service: Service, expectation: str) -> None:
    await check(service, await post(service, CLAIM, Expect=expectation), 417, "expectation-failed")


async def test_a_log_line_cannot_be_forged(service: Service) -> None:
    """Nothing that a client sends reaches the log with a line break or a control character in it."""
    await get(service, b"/a%0D%0A%1B[31mINFO%20forged?q=%0A")
    await send(
        service,
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Request-ID: a\xff\x9b\r\nUser-Agent: \x9b31m\r\n"
        b"\r\n",
    )
    assert len(service.lines) == 2
    for line in service.lines:
        for value in line.values():
            assert str(value).isascii()
            assert str(value).isprintable()


async def test_series_stay_few_whatever_is_asked_for(service: Service) -> None:
    """Ten thousand paths, names and methods make no more label values than there are routes and methods."""
    rng = random.Random(20260101)
    alphabet = string.ascii_letters + string.digits + "._-%/{}"
    templates = ["/{}", "/api/{}", "/api/coupons/{}", "/api/coupons/{}/claims", "/api/claims/{}", "/problems/{}"]
    methods = [b"GET", b"HEAD", b"PUT", b"DELETE", b"PURGE", b"MKCOL", b"REPORT", b"OPTIONS"]
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)

    async def answers() -> None:
        # Read away; the answers are checked by another test, and what counts here is what was counted.
        while await reader.read(1 << 16):
            pass

    reading = asyncio.create_task(answers())
    for _ in range(10_000):
        name = "".join(rng.choices(alphabet, k=rng.randint(1, 30)))
        target = rng.choice(templates).format(name).encode()
        writer.write(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (rng.choice(methods), target))
        await writer.drain()
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await reading
    writer.close()
    seen = service.observations.seen
    assert len(seen) == len(service.lines) == 10_001
    assert {route for _, route, _ in seen} <= {route.path for route in ROUTES} | {"unmatched"}
    known = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"}
    assert {method for method, _, _ in seen} == known | {"OTHER"}
    assert {status for _, _, status in seen} <= {200, 400, 404, 405}
    assert await service.is_healthy()
