"""The same value is accepted, or refused with the same rule, over HTTP, by the command line, and in a file."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from claimsvc.domain import NewCode, RefusedRow
from claimsvc.representations.code_files import CSV, NDJSON, RowReader
from tests.http.memory_services import Service
from tests.support.admin import ADMIN
from tests.support.program import claimsvc_here

JSON_TYPE = {**ADMIN, "Content-Type": "application/json"}
DEAD = {"CLAIMSVC_DATABASE_URL": "postgresql://nobody:nothing@127.0.0.1:1/none"}

RIGHT_TIMES = (
    *("2999-01-01T00:00:00Z", "2999-01-01t00:00:00z", "2999-01-01 00:00:00Z", "2999-01-01T09:00:00+09:00"),
    *("2999-01-01T00:00:00.123456789Z", "2999-01-01T00:00:00-00:00", "9999-12-31T23:59:59Z"),
)
WRONG_TIMES = (
    *("2026-12-01", "2026-12-01T00:00:00", "2026-12-01T00:00Z", "20261201T000000Z", "2030-W01-1T00:00:00Z", "2030-001"),
    *("2026-12-01T24:00:00Z", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z", "2026-12-01T00:00:00,5Z", "1893456000"),
    *("2026-12-01T00:00:00+09", "2026-12-01T00:00:00+0900", "2026-12-01T00:00:00+24:00", "2026-12-01T00:00:60Z"),
    *("2026-12-01_00:00:00Z", "2026-12-01T00:00:00 Z", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z", "now"),
    *(
        "tomorrow",
        "2026/12/01 00:00:00",
        "2026-12-01T00:00:00Z\u200b",
        "\uff12\uff10\uff12\uff16-12-01T00:00:00Z",
        "2026-12-01T00:00:00ZZ",
    ),
)
RULE = "an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z"


async def sent(service: Service, method: str, path: str, data: str, **headers: str) -> tuple[int, Any]:
    options: dict[str, Any] = {"data": data.encode("utf-8", "surrogatepass"), "headers": {**JSON_TYPE, **headers}}
    async with service.client.request(method, URL(service.url + path, encoded=True), **options) as response:
        return response.status, await response.json(content_type=None)


def is_usage_error(*words: str) -> tuple[bool, str]:
    """Whether a command refuses its arguments, before it asks the database, which is dead; and what it says."""
    told = claimsvc_here(*words, **DEAD)
    assert told.returncode in (2, 78), told
    assert "Traceback" not in told.stderr
    return told.returncode == 2, " ".join(told.stderr.replace("│", " ").split())


@pytest.mark.parametrize(("text", "is_right"), [(t, True) for t in RIGHT_TIMES] + [(t, False) for t in WRONG_TIMES])
async def test_a_time_is_the_same_everywhere(service: Service, text: str, is_right: bool) -> None:
    for field in ("starts_at", "ends_at"):
        status, answer = await sent(service, "PATCH", "/api/coupons/plenty", json.dumps({field: text}))
        assert status == (200 if is_right else 400), answer
        assert is_right or answer["errors"] == [{"detail": f"Must be {RULE}.", "pointer": f"#/{field}"}]
        await sent(service, "PATCH", "/api/coupons/plenty", '{"starts_at": null, "ends_at": null}')
    status, answer = await sent(service, "GET", f"/api/audit?since={quote(text)}", "")
    assert status == (200 if is_right else 400), answer
    body = json.dumps({"count": 1, "pattern": "AAAA-9999", "expires_at": text})
    status, answer = await sent(service, "POST", "/api/coupons/no-such/codes/generate", body)
    assert status == (404 if is_right else 400), answer
    for kind, row in ((CSV, f"A-1,{text}"), (NDJSON, json.dumps({"code": "A-1", "expires_at": text}))):
        reader = RowReader(kind)
        [read] = [*reader.feed(row.encode()), *reader.finish()]
        assert isinstance(read, NewCode if is_right else RefusedRow), row
    for words in (
        ("coupon", "change", "a", "--starts-at", text),
        ("coupon", "create", "a", "--amount", "1", "--ends-at", text),
        ("codes", "generate", "a", "--count", "1", "--expires-at", text),
        ("audit", "--since", text),
    ):
        is_refused, says = is_usage_error(*words)
        assert is_refused is not is_right, (words, says)
        assert is_right or "must be an RFC 3339 date-time with an offset" in says


DEEP = '{"text":' * 3000 + "1" + "}" * 3000
BODIES = (
    *("5", "[]", '"a"', "true", "{", "", "{}x", "{'percent_off':15}", "\ufeff{}", '{"percent_off":15,}'),
    *('{"percent_off":15}', ' {"percent_off" : 15 }\n', '{"percent_off":15.0}', '{"percent_off":1.5e1}'),
    *('{"percent_off":100.5}', '{"percent_off":"15"}', '{"percent_off":true}', '{"percent_off":null}'),
    *('{"percent_off":NaN}', '{"percent_off":1e999}', '{"percent_off":1e-400}', '{"percent_off":Infinity}'),
    *('{"percent_off":' + "9" * 40 + "}", '{"percent_off":1e-99999999999999999999}', '{"percent_off":0}', "{}"),
    *(
        '{"amount_off":5e3,"currency":"KRW"}',
        '{"amount_off":5.5,"currency":"KRW"}',
        '{"amount_off":5,"currency":"krw"}',
    ),
    *(
        '{"text":"a","text":"b"}',
        '{"text":"\\u0000"}',
        '{"text":"\\ud800"}',
        '{"text":"가 \\ud83d\\ude00"}',
        '{"text":""}',
    ),
    *('{"percent_off":15,"text":"a"}', '{"percent_of":15}', DEEP, '{"text":"' + "x" * 501 + '"}'),
)


@pytest.mark.parametrize("text", BODIES, ids=range(len(BODIES)))
async def test_a_document_is_the_same_everywhere(service: Service, text: str) -> None:
    status, answer = await sent(service, "PATCH", "/api/coupons/plenty", f'{{"benefit": {text}}}')
    is_refused, says = is_usage_error("coupon", "change", "a", "--benefit", text)
    assert (status, is_refused) in ((200, False), (400, True)), (answer, says)
    if is_refused and answer["errors"][0]["pointer"].startswith("#/benefit/"):
        inside = answer["errors"][0]["pointer"].removeprefix("#/benefit")
        assert f"at {inside}: " in says
        assert answer["errors"][0]["detail"][1:].split(".")[0] in says
