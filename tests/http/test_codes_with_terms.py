"""Codes with a type or a benefit of their own: what is uploaded is what is shown, wherever the code may be seen."""

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import Scope
from claimsvc.representations.code_files import CSV, NDJSON, RowReader
from claimsvc.representations.csv_cells import guarded
from tests.http.till import BASE, Till, open_till, till
from tests.support.admin import ADMIN
from tests.support.databases import administrate
from tests.support.waiting import until

__all__ = ["open_till", "till"]

FILE = """code,type,percent_off,amount_off,currency,text
V-1,vip,50,,,
V-2,,,5000,KRW,
V-3,plain,,,,
V-4,,,,,"a free coffee, and cake"
V-5
"""
TERMS: list[tuple[str | None, Mapping[str, Any] | None]] = [
    ("vip", {"percent_off": 50}),
    (None, {"amount_off": 5000, "currency": "KRW"}),
    ("plain", None),
    (None, {"text": "a free coffee, and cake"}),
    (None, None),
]


async def upload(shop: Till, rows: str, media_type: str = CSV, query: str = "", **headers: str) -> tuple[int, Any]:
    return await shop.ask(
        "POST", f"{BASE}/codes{query}", rows.encode(), headers={"Content-Type": media_type, **headers}
    )


def terms(body: Mapping[str, Any]) -> tuple[Any, Any]:
    return body["type"], body["benefit"]


async def test_a_code_shows_its_own_terms_with_itself_and_with_its_claim(open_till: Till) -> None:
    await open_till.offer(FILE)
    claims = [await open_till.claim(f"user-{number}") for number in range(5)]
    for number, (claim, own) in enumerate(zip(claims, TERMS, strict=True), 1):
        assert claim["code"] == f"V-{number}"
        # Without terms of its own, the claim is what it always was.
        assert ("type" in claim, "benefit" in claim) == (own != (None, None),) * 2
        assert (claim.get("type"), claim.get("benefit")) == own
        assert (await open_till.ask("GET", f"/api/claims/{claim['id']}"))[1] == claim
        again = await open_till.ask("POST", "/api/coupons/claim", {k: claim[k] for k in ("user_id", "coupon_name")})
        assert again[1]["claim"] == claim
        assert terms((await open_till.ask("GET", f"/api/codes/{claim['code']}"))[1]) == own
        [mine] = (await open_till.ask("GET", f"/api/users/{claim['user_id']}/claims"))[1]["items"]
        assert terms(mine) == own
    assert [terms(code) for code in (await open_till.ask("GET", f"{BASE}/codes"))[1]["items"]] == TERMS
    assert (await open_till.ask("GET", f"{BASE}/claims"))[1]["items"] == claims
    for path, own in (("/api/codes/V-1", TERMS[0]), (f"/api/claims/{claims[1]['id']}", TERMS[1])):
        status, redeemed = await open_till.ask("POST", f"{path}/redeem")
        assert (status, terms(redeemed)) == (200, own)
    checked = (await open_till.ask("GET", "/api/codes/V-3/validate"))[1]
    assert terms(checked["code"]) == TERMS[2]
    status, cancelled = await open_till.ask("DELETE", f"/api/claims/{claims[2]['id']}")
    assert (status, terms(cancelled)) == (200, TERMS[2])


async def test_what_a_code_leaves_open_is_said_by_its_coupon(open_till: Till) -> None:
    await open_till.offer("code,percent_off\nV-1,50\nV-2,\n", type="welcome")
    claims = [await open_till.claim(user) for user in ("ann", "bob")]
    assert terms(claims[0]) == ("welcome", {"percent_off": 50})
    assert "type" not in claims[1]
    for code, own in (("V-1", ("welcome", {"percent_off": 50})), ("V-2", ("welcome", None))):
        assert terms((await open_till.ask("GET", f"/api/codes/{code}"))[1]) == own
    # What the coupon says later counts for those without terms of their own.
    await open_till.ask("PATCH", BASE, {"benefit": {"percent_off": 1}})
    for user, percent_off in (("ann", 50), ("bob", 1)):
        [mine] = (await open_till.ask("GET", f"/api/users/{user}/claims"))[1]["items"]
        assert terms(mine) == ("welcome", {"percent_off": percent_off})


async def test_terms_that_the_coupon_has_are_refused_row_by_row(open_till: Till) -> None:
    await open_till.offer(type="welcome", benefit={"percent_off": 5})
    rows = "code,type,percent_off\nA-1,vip,\nA-2,,15\nA-3,,\nA-4,a b,\nA-5,,150\nA-6,vip,15\n"
    refused = [
        {"row": 2, "code": "A-1", "reason": "coupon-has-type"},
        {"row": 3, "code": "A-2", "reason": "coupon-has-benefit"},
        {"row": 5, "code": "A-4", "reason": "bad-type"},
        {"row": 6, "code": "A-5", "reason": "bad-benefit"},
        {"row": 7, "code": "A-6", "reason": "coupon-has-type"},
    ]
    # All or none: the file's own mistakes come first, because nothing is asked of the database then.
    status, problem = await upload(open_till, rows)
    assert (status, problem["type"], problem["rejected"]) == (422, "/problems/rows-refused", refused[2:4])
    status, problem = await upload(open_till, rows.replace("a b", "").replace("150", ""))
    assert (status, problem["rejected"]) == (422, [refused[0], refused[1], refused[4]])
    status, added = await upload(open_till, rows, query="?atomic=false")
    assert (status, added) == (200, {"added": 1, "rejected_count": 5, "rejected": refused})
    # Once the coupon leaves them open, they are added.
    await open_till.ask("PATCH", BASE, {"type": None, "benefit": None})
    assert (await upload(open_till, "code,type,percent_off\nA-1,vip,\nA-2,,15\n"))[1]["added"] == 2


async def test_a_coupon_has_at_most_a_hundred_types_of_codes(open_till: Till) -> None:
    await open_till.offer()
    many = "code,type\n" + "".join(f"T-{number},type-{number}\n" for number in range(99))
    assert (await upload(open_till, many))[0] == 200
    more = "code,type\nM-1,type-100\nM-2,type-101\nM-3,type-5\nM-4,\n"
    assert (await upload(open_till, more))[1]["rejected"] == [{"row": 3, "code": "M-2", "reason": "too-many-types"}]
    assert (await upload(open_till, more, query="?atomic=false"))[1]["added"] == 3
    assert (await upload(open_till, "code,type\nM-5,type-101\n"))[0] == 422
    assert (await upload(open_till, "code,type\nM-5,type-100\n"))[0] == 200


async def test_a_hold_tells_nothing_of_its_code_until_it_is_confirmed(open_till: Till) -> None:
    await open_till.offer(FILE)
    held = await open_till.claim("ann", hold_seconds=60)
    assert (held["code"], "type" in held) == (None, False)
    [mine] = (await open_till.ask("GET", "/api/users/ann/claims"))[1]["items"]
    assert terms(mine) == (None, None)
    status, confirmed = await open_till.ask("POST", f"/api/claims/{held['id']}/confirm")
    assert (status, confirmed["code"], terms(confirmed)) == (200, "V-1", TERMS[0])
    await open_till.claim("bob", hold_seconds=60)
    continued = {"user_id": "bob", "coupon_name": "spring"}
    status, kept = await open_till.ask("POST", "/api/coupons/claim", continued, headers={"Idempotency-Key": "k"})
    assert (status, terms(kept)) == (200, TERMS[1])
    assert await open_till.ask("POST", "/api/coupons/claim", continued, headers={"Idempotency-Key": "k"}) == (200, kept)


async def test_only_those_who_see_the_code_see_its_terms(till: Till) -> None:
    await till.offer(FILE)
    claim = await till.claim("ann")
    claims = await till.key(Scope.CLAIMS_READ)
    codes = await till.key(Scope.CLAIMS_READ, Scope.CODES_READ)
    [listed] = (await till.ask("GET", "/api/users/ann/claims", by=claims))[1]["items"]
    assert ("code" in listed, terms(listed)) == (False, (None, None))
    [listed] = (await till.ask("GET", f"{BASE}/claims", by=claims))[1]["items"]
    assert not {"code", "type", "benefit"} & listed.keys()
    [listed] = (await till.ask("GET", f"{BASE}/claims", by=codes))[1]["items"]
    assert listed == claim
    [mine] = (await till.ask("GET", "/api/users/me/claims", by=till.user("ann")))[1]["items"]
    assert (mine["code"], terms(mine)) == ("V-1", TERMS[0])
    for by, has_terms in ((claims, False), (codes, True)):
        async with till.client.get(f"{till.url}{BASE}/claims/export", headers=by) as response:
            heading, line = (await response.text()).splitlines()
        assert heading.endswith(",code,type,percent_off,amount_off,currency,text") == has_terms
        assert ("vip" in line) == has_terms


async def test_an_export_has_them_in_the_columns_of_an_upload(open_till: Till) -> None:
    await open_till.offer(FILE + 'V-6,,,,,"=1+1;%"\nV-7,,12.50,,,\n')
    for number in range(7):
        await open_till.claim(f"user-{number}")
    administrate(open_till.database_url, 'UPDATE campaigns SET benefit = \'{"text": "of the coupon"}\'')
    async with open_till.client.get(f"{open_till.url}{BASE}/claims/export", headers=ADMIN) as response:
        lines = list(csv.DictReader(io.StringIO(await response.text(), newline="")))
    columns = ("code", "type", "percent_off", "amount_off", "currency", "text")
    assert [tuple(line[column] for column in columns) for line in lines] == [
        ("V-1", "vip", "50.0", "", "", ""),
        ("V-2", "", "", "5000", "KRW", ""),
        ("V-3", "plain", "", "", "", "of the coupon"),
        ("V-4", "", "", "", "", "a free coffee, and cake"),
        ("V-5", "", "", "", "", "of the coupon"),
        ("V-6", "", "", "", "", "'=1+1%3B%25"),
        ("V-7", "", "12.5", "", "", ""),
    ]
    again = RowReader(CSV)
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([line[column] for column in columns] for line in lines)
    rows = [*again.feed(file.getvalue().encode()), *again.finish()]
    assert getattr(rows[5], "benefit", None) == {"text": "=1+1;%"}


async def test_a_code_is_counted_by_its_own_type(open_till: Till) -> None:
    async def follow(**expected: tuple[int, int, int, int]) -> None:
        for name, figures in expected.items():
            coupon_type = "" if name == "none" else name

            async def are_right(coupon_type: str = coupon_type, figures: tuple[int, ...] = figures) -> bool:
                _, told = await open_till.ask("GET", f"/api/codes?type={coupon_type}")
                return tuple(told[each] for each in ("uploaded", "claimed", "redeemed", "voided")) == figures

            await until(are_right, f"{figures} of {name}", within_seconds=8.0)

    await open_till.offer("code,type\nV-1,vip\nV-2,plain\nV-3,\nV-4,vip\n")
    await follow(vip=(2, 0, 0, 0), plain=(1, 0, 0, 0), none=(1, 0, 0, 0))
    first, second = [await open_till.claim(user) for user in ("ann", "bob")]
    await follow(vip=(2, 1, 0, 0), plain=(1, 1, 0, 0))
    await open_till.ask("POST", f"/api/codes/{first['code']}/redeem")
    await open_till.ask("DELETE", f"/api/claims/{second['id']}")
    await follow(vip=(2, 1, 1, 0), plain=(1, 0, 0, 1), none=(1, 0, 0, 0))
    # A type that the coupon gets later is that of the codes without one.
    await open_till.ask("PATCH", BASE, {"type": "welcome"})
    await follow(vip=(2, 1, 1, 0), plain=(1, 0, 0, 1), none=(0, 0, 0, 0), welcome=(1, 0, 0, 0))
    await open_till.claim("eve")
    await open_till.claim("kim", hold_seconds=60)
    await follow(vip=(2, 2, 1, 0), welcome=(1, 1, 0, 0))
    administrate(open_till.database_url, "UPDATE user_claims SET held_until = now() WHERE held_until IS NOT NULL")
    await open_till.ask("PATCH", BASE, {"paused": True})
    await follow(vip=(2, 1, 1, 0))
    await open_till.ask("POST", f"/api/codes/{first['code']}/unredeem", {"reason": "it fell through"})
    await follow(vip=(2, 1, 0, 0))


async def test_an_upload_with_terms_is_told_again_under_its_key(open_till: Till) -> None:
    await open_till.offer()
    rows = '{"code": "A-1", "type": "vip", "benefit": {"percent_off": 15}}\n'
    first = await upload(open_till, rows, NDJSON, **{"Idempotency-Key": "k"})
    assert first == (200, {"added": 1, "rejected_count": 0, "rejected": []})
    assert await upload(open_till, rows, NDJSON, **{"Idempotency-Key": "k"}) == first
    for other in (rows.replace("vip", "plain"), rows.replace("15", "16"), '{"code": "A-1"}\n'):
        status, problem = await upload(open_till, other, NDJSON, **{"Idempotency-Key": "k"})
        assert (status, problem["type"]) == (422, "/problems/key-reused")


_TYPES = st.none() | st.from_regex(r"\A[A-Za-z0-9_-][A-Za-z0-9._-]{0,8}\Z")
# Cells are stripped, so the text ends in a dot.
_TEXTS = st.text(st.sampled_from("aZ9 ,;%'\"=+-@é"), max_size=20).map(lambda text: f"{text.lstrip()}.")
_BENEFITS = st.one_of(
    st.none(),
    st.builds(lambda off: {"percent_off": off / 100}, st.integers(1, 10_000)),
    st.builds(lambda off: {"amount_off": off, "currency": "KRW"}, st.integers(1, 2**53 - 1)),
    st.builds(lambda text: {"text": text}, _TEXTS),
)


@pytest.mark.parametrize("media_type", [CSV, NDJSON])
@given(rows=st.lists(st.tuples(_TYPES, _BENEFITS), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
async def test_what_is_uploaded_is_what_is_shown(
    open_till: Till, media_type: str, rows: list[tuple[str | None, dict[str, Any] | None]]
) -> None:
    administrate(open_till.database_url, "TRUNCATE coupons, code_names CASCADE")
    if media_type == CSV:
        file = io.StringIO(newline="")
        columns = ["code", "type", "percent_off", "amount_off", "currency", "text"]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for number, (own, benefit) in enumerate(rows):
            cells = {**(benefit or {}), **({"text": guarded(benefit["text"])} if benefit and "text" in benefit else {})}
            writer.writerow({"code": f"C-{number}", "type": own, **cells})
        content = file.getvalue()
    else:
        content = "".join(
            json.dumps({"code": f"C-{number}", "type": own, "benefit": benefit}) + "\n"
            for number, (own, benefit) in enumerate(rows)
        )
    await open_till.offer()
    assert await upload(open_till, content, media_type) == (
        200,
        {"added": len(rows), "rejected_count": 0, "rejected": []},
    )
    listed = (await open_till.ask("GET", f"{BASE}/codes"))[1]["items"]
    assert [terms(code) for code in listed] == rows
    for number, row in enumerate(rows):
        claim = await open_till.claim(f"user-{number}")
        assert (claim["code"], claim.get("type"), claim.get("benefit")) == (f"C-{number}", *row)
