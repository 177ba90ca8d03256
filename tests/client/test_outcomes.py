"""What the client makes of each answer."""

import inspect
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from aiohttp import web

from claimsvc import client as package
from claimsvc.client import (
    AlreadyClaimed,
    BadRequestError,
    Cancelled,
    Claim,
    ClaimCancelled,
    ClaimClient,
    ClaimClientError,
    Claimed,
    Confirmed,
    Coupon,
    CouponCreated,
    CouponExists,
    Ended,
    ForbiddenError,
    HoldContinued,
    HoldExpired,
    KeyReused,
    NotEligible,
    NotStarted,
    Paused,
    ProblemError,
    Refused,
    Retries,
    ServiceFailedError,
    SoldOut,
    UnauthorizedError,
    UnexpectedAnswerError,
    UnknownClaim,
    UnknownCoupon,
    UnknownCouponError,
    errors,
    outcomes,
)
from claimsvc.client import refusals as tables
from claimsvc.domain import Problem
from claimsvc.http.server import problems
from tests.client.scripted import CLAIM, COUPON, Say, problem, refuses, says, scripted

_AT = datetime(2026, 11, 21, 2, 28, 17, 951077, tzinfo=UTC)
_CLAIM = Claim(CLAIM["id"], "spring", "ada", "active", _AT)
_STARTS_AT = datetime(2026, 11, 27, tzinfo=UTC)
_COUPON = Coupon("spring", 5, 4, "redlock", _AT.replace(microsecond=0))

Call = Callable[[ClaimClient], Awaitable[object]]


async def claim(client: ClaimClient) -> object:
    return await client.claim(user_id="ada", coupon_name="spring")


async def confirm(client: ClaimClient) -> object:
    return await client.confirm(CLAIM["id"])


async def cancel(client: ClaimClient) -> object:
    return await client.cancel(CLAIM["id"], "by mistake")


async def look(client: ClaimClient) -> object:
    return await client.claim_by_id(CLAIM["id"])


async def create(client: ClaimClient) -> object:
    return await client.create_coupon("spring", 5)


async def coupon(client: ClaimClient) -> object:
    return await client.coupon("spring")


async def every_claim(client: ClaimClient) -> object:
    return [claim async for claim in client.claims("spring")]


async def answered(call: Call, *say: Say) -> object:
    async with scripted(*say) as service, ClaimClient(service.url, retries=Retries(most=0)) as client:
        return await call(client)


@pytest.mark.parametrize(
    ("call", "say", "expected"),
    [
        (claim, says(201, CLAIM), Claimed(_CLAIM)),
        (claim, says(200, CLAIM), HoldContinued(_CLAIM)),
        (claim, refuses("already-claimed", 409, claim=CLAIM), AlreadyClaimed(_CLAIM)),
        (claim, refuses("sold-out", 409), SoldOut()),
        (claim, refuses("unknown-coupon", 404), UnknownCoupon()),
        (
            claim,
            refuses("not-started", 409, retry_after="90", starts_at="2026-11-27T09:00:00+09:00"),
            NotStarted(_STARTS_AT, 90.0),
        ),
        (claim, refuses("ended", 409), Ended()),
        (claim, refuses("paused", 409), Paused()),
        (claim, refuses("not-eligible", 403, reasons=[{"code": "denied"}]), NotEligible(({"code": "denied"},))),
        (claim, refuses("key-reused", 422), KeyReused()),
        (confirm, says(200, CLAIM), Confirmed(_CLAIM)),
        (confirm, refuses("hold-expired", 410, claim=CLAIM), HoldExpired(_CLAIM)),
        (confirm, refuses("claim-cancelled", 409, claim=CLAIM), ClaimCancelled(_CLAIM)),
        (confirm, refuses("unknown-claim", 404), UnknownClaim()),
        (confirm, refuses("key-reused", 422), KeyReused()),
        (cancel, says(200, CLAIM), Cancelled(_CLAIM)),
        (cancel, refuses("hold-expired", 410, claim=CLAIM), HoldExpired(_CLAIM)),
        (cancel, refuses("unknown-claim", 404), UnknownClaim()),
        (look, says(200, CLAIM), _CLAIM),
        (look, refuses("unknown-claim", 404), UnknownClaim()),
        (create, says(201, COUPON), CouponCreated(_COUPON)),
        (create, refuses("coupon-exists", 409), CouponExists()),
        (coupon, says(200, COUPON), _COUPON),
        (coupon, refuses("unknown-coupon", 404), UnknownCoupon()),
    ],
)
async def test_an_answer_is_an_outcome_of_its_own_type(call: Call, say: Say, expected: object) -> None:
    assert await answered(call, say) == expected


async def test_a_held_claim_says_until_when_and_an_ended_one_since_when() -> None:
    held = CLAIM | {"state": "held", "expires_at": "2026-11-27T00:00:00Z", "ended_at": None}
    ended = CLAIM | {"state": "cancelled", "ended_at": "2026-11-27T00:00:00Z"}
    first, then = await answered(claim, says(201, held)), await answered(cancel, says(200, ended))
    assert isinstance(first, Claimed)
    assert (first.claim.state, first.claim.expires_at, first.claim.ended_at) == ("held", _STARTS_AT, None)
    assert isinstance(then, Cancelled)
    assert (then.claim.state, then.claim.expires_at, then.claim.ended_at) == ("cancelled", None, _STARTS_AT)


async def test_a_coupon_has_its_rules_and_claimants() -> None:
    rules = {"starts_at": "2026-11-27T00:00:00Z", "paused": True, "per_user_limit": 3, "benefit": {"percent_off": 15}}
    more = {"claimed_by": ["ada"], "metadata": {"channel": "app"}}
    found = await answered(coupon, says(200, COUPON | rules | more))
    assert isinstance(found, Coupon)
    assert (found.starts_at, found.ends_at, found.paused, found.per_user_limit) == (_STARTS_AT, None, True, 3)
    assert (found.benefit, found.metadata, found.claimed_by) == ({"percent_off": 15}, {"channel": "app"}, ("ada",))
    assert found.claimed_count == found.amount - found.remaining_amount > 0


async def test_what_a_newer_service_tells_besides_is_kept() -> None:
    outcome = await answered(claim, says(201, CLAIM | {"state": "redeemed", "code": "AAAA-9999", "seat": "7"}))
    assert isinstance(outcome, Claimed)
    assert (outcome.claim.state, outcome.claim.code, outcome.claim.more) == ("redeemed", "AAAA-9999", {"seat": "7"})


async def test_an_outcome_says_which_request_it_answers_and_whether_it_was_answered_before() -> None:
    outcome = await answered(claim, says(201, CLAIM, X_Request_ID="r-7", Idempotency_Replayed="true"))
    assert isinstance(outcome, Claimed)
    assert (outcome.request_id, outcome.replayed) == ("r-7", True)


async def test_a_refusal_without_a_type_of_its_own_is_its_problem() -> None:
    outcome = await answered(claim, refuses("not-today", 403, days=["Monday"]))
    assert isinstance(outcome, Refused)
    assert (outcome.problem.slug, outcome.problem.status) == ("not-today", 403)
    assert outcome.problem.document["days"] == ["Monday"]


async def test_a_bad_request_says_what_is_wrong_and_where() -> None:
    errors = [
        {"detail": "Must be a name. Example: user-1.", "pointer": "#/user_id"},
        {"detail": "Must be a number.", "parameter": "limit"},
        "no object",
    ]
    with pytest.raises(BadRequestError) as raised:
        await answered(claim, refuses("bad-request", 400, errors=errors))
    assert raised.value.errors == tuple(errors[:2])
    first, *told = str(raised.value).splitlines()
    assert first == "400 bad-request: so it is (request r-1)"
    assert told == ["#/user_id: Must be a name. Example: user-1.", "limit: Must be a number."]
    for nothing in ({}, {"errors": None}, {"errors": {"detail": "a"}}):
        with pytest.raises(BadRequestError) as raised:
            await answered(claim, refuses("bad-request", 400, **nothing))
        assert (raised.value.errors, str(raised.value).count("\n")) == ((), 0)


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (refuses("bad-request", 400, errors=[]), BadRequestError),
        (refuses("not-found", 404), BadRequestError),
        (refuses("body-too-large", 413), BadRequestError),
        (refuses("unauthorized", 401), UnauthorizedError),
        (refuses("forbidden", 403), ForbiddenError),
        (refuses("internal-error", 500), ServiceFailedError),
    ],
)
async def test_a_problem_that_is_no_outcome_is_an_error(say: Say, error: type[ProblemError]) -> None:
    for call in (claim, confirm, cancel, look, create, coupon, every_claim):
        with pytest.raises(error) as raised:
            await answered(call, say)
        assert raised.value.problem.request_id == "r-1"
        assert "so it is" in str(raised.value)


@pytest.mark.parametrize(
    "document",
    [
        *({name: value for name, value in CLAIM.items() if name != missing} for missing in CLAIM),
        CLAIM | {"user_id": 7},
        CLAIM | {"claimed_at": "yesterday"},
        CLAIM | {"claimed_at": "2026-11-21T02:28:17"},
        CLAIM | {"expires_at": False},
        [CLAIM],
        None,
    ],
)
async def test_a_claim_that_cannot_be_read_is_an_error(document: object) -> None:
    with pytest.raises(UnexpectedAnswerError):
        await answered(claim, says(201, document))


@pytest.mark.parametrize("number", [True, "5", 5.5])
async def test_a_coupon_whose_numbers_are_none_is_an_error(number: object) -> None:
    with pytest.raises(UnexpectedAnswerError, match="amount"):
        await answered(coupon, says(200, COUPON | {"amount": number}))


@pytest.mark.parametrize("status", [200, 204, 307, 404, 409, 500])
async def test_what_is_no_claim_service_is_an_error_that_shows_what_it_said(status: int) -> None:
    async def page(_: web.Request) -> web.StreamResponse:
        text = None if status == 204 else "<html>welcome"
        return web.Response(status=status, text=text, headers={"Location": "/elsewhere"})

    with pytest.raises(UnexpectedAnswerError, match=f"status {status}"):
        await answered(claim, page)


async def test_claims_are_read_page_by_page_as_they_are_asked_for() -> None:
    pages = [{"items": [CLAIM | {"id": name}], "next_cursor": after} for name, after in [("a", "0a"), ("b", None)]]
    async with scripted(*(says(200, page) for page in pages)) as service, ClaimClient(service.url) as client:
        found = [(each.id, len(service.asked)) async for each in client.claims("spring", page_size=1)]
        assert found == [("a", 1), ("b", 2)]
        paths = [asked.path for asked in service.asked]
    assert paths == ["/api/coupons/spring/claims?limit=1", "/api/coupons/spring/claims?limit=1&cursor=0a"]


@pytest.mark.parametrize(
    ("user_id", "states", "path"),
    [
        (None, [], "/api/users/me/claims?limit=100"),
        ("a/b", ["active", "held"], "/api/users/a%2Fb/claims?limit=100&state=active%2Cheld"),
    ],
)
async def test_claims_of_a_user_are_read_with_what_their_coupons_are_worth(
    user_id: str | None, states: list[str], path: str
) -> None:
    page = {"items": [{**CLAIM, "type": "t", "benefit": {"percent_off": 5}}], "next_cursor": None}
    async with scripted(says(200, page)) as service, ClaimClient(service.url) as client:
        [found] = [each async for each in client.claims_of_user(user_id, states=states)]
    assert (found, dict(found.more)) == (_CLAIM, {"type": "t", "benefit": {"percent_off": 5}})
    assert [asked.path for asked in service.asked] == [path]


@pytest.mark.parametrize("states", ["active", "", "active,held"])
async def test_one_text_is_not_several_states(states: str) -> None:
    async with scripted() as service, ClaimClient(service.url) as client:
        with pytest.raises(TypeError, match=r'claims_of_user\(states=\["active"\]\)'):
            _ = [each async for each in client.claims_of_user(states=states)]
    assert service.asked == []


async def test_claims_of_another_user_are_an_error() -> None:
    async with scripted(refuses("not-your-claim", 403)) as service, ClaimClient(service.url) as client:
        with pytest.raises(ProblemError):
            _ = [each async for each in client.claims_of_user("eve")]


async def test_claims_of_an_unknown_coupon_are_an_error() -> None:
    with pytest.raises(UnknownCouponError) as raised:
        await answered(every_claim, refuses("unknown-coupon", 404))
    assert raised.value.coupon_name == "spring"


async def test_a_listing_that_may_not_be_read_is_an_error() -> None:
    with pytest.raises(ProblemError, match="not-your-claim"):
        await answered(every_claim, refuses("not-your-claim", 403))


async def test_a_list_that_comes_back_to_the_same_page_is_an_error() -> None:
    with pytest.raises(UnexpectedAnswerError, match="this page"):
        await answered(every_claim, says(200, {"items": [CLAIM], "next_cursor": "0a"}))


def test_every_outcome_is_a_problem_that_the_service_has() -> None:
    calls = (tables.OF_CLAIMING, tables.OF_CONFIRMING, tables.OF_CANCELLING, tables.OF_CREATING)
    slugs = {slug for table in calls for slug in table}
    assert slugs <= problems.PROBLEMS.keys()


@pytest.mark.parametrize("kind", problems.PROBLEMS.values(), ids=lambda kind: kind.slug)
async def test_every_problem_of_the_service_is_understood(kind: Problem) -> None:
    """As the service writes it, and with what some of them say besides."""
    written = json.loads(problems.respond(kind, "r-1").body)
    document = {"claim": CLAIM, "starts_at": "2026-11-27T00:00:00Z", "reasons": []} | written
    assert document.keys() >= problem("", 0).keys()
    try:
        outcome = await answered(claim, says(kind.status, document))
    except ClaimClientError as error:
        assert not isinstance(error, UnexpectedAnswerError)  # noqa: PT017 - some are errors and some are not
        found = getattr(error, "problem", None)
        assert found is not None
        assert found.slug == kind.slug
    else:
        assert kind.slug in tables.OF_CLAIMING or isinstance(outcome, Refused)


def test_everything_of_the_client_is_imported_from_one_place() -> None:
    kinds = [kind for module in (errors, outcomes) for kind in vars(module).values() if inspect.isclass(kind)]
    defined = {kind for kind in kinds if kind.__module__.startswith("claimsvc.client")}
    exported = [getattr(package, name) for name in vars(package) if not name.startswith("_")]
    assert [kind for kind in defined if kind not in exported] == []
    assert all(kind in exported for kind in (package.ClaimClient, package.Retries, package.ClaimOutcome))


def test_importing_the_client_loads_nothing_of_the_service() -> None:
    script = "import sys, claimsvc.client; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = set(told.stdout.split())
    ours = {name for name in loaded if name.startswith("claimsvc.") and not name.startswith("claimsvc.client")}
    assert ours == set()
    heavy = {"alembic", "orjson", "pottery", "prometheus_client", "psycopg", "pydantic", "redis", "sqlalchemy"}
    assert loaded & (heavy | {"structlog", "tenacity", "typer", "uvloop", "aiohttp.web"}) == set()
