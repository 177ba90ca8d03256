"""Claims with keys, tokens and quotas are answered on the fast path, byte for byte as on the ordinary way."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claimsvc.domain import Quota, StrategyName
from claimsvc.http.framework import idempotency
from tests.http.gated import EXPRESS, ORDINARY, Gate, claim_request, read_answer
from tests.http.guarded import SHOP, both_ways, guarded, keys_in, ordinary_requests
from tests.http.memory_services import MemoryStrategy
from tests.support.admin import ADMIN
from tests.support.raw_http import connected
from tests.support.token_issuer import Issuer
from tests.support.waiting import until

_ISSUER = Issuer()
_QUOTAS = (Quota("address", 6, 60), Quota("user", 3, 60))


def body_of(user: str | None = "ann", coupon: str = "plenty", **more: object) -> bytes:
    named = {"user_id": user} if user is not None else {}
    return json.dumps({**named, "coupon_name": coupon, **more}).encode()


def key(value: str) -> str:
    return f"Idempotency-Key: {value}\r\n"


def bearer(credential: str) -> str:
    return f"Authorization: Bearer {credential}\r\n"


def statuses(told: list[bytes]) -> list[int]:
    return [int(each.split()[1]) for each in told]


async def test_answers_under_a_key_are_those_of_the_ordinary_way(tmp_path: Path) -> None:
    requests = [
        (body_of(), key("k-1")),
        (body_of(), key('"k-1"')),
        (body_of("ben"), key("k-1")),
        (body_of("ben"), key("k-2")),
        (body_of(), key("k-3")),
        (body_of(), key("k-3")),
        (body_of(coupon="none"), key("k-4")),
        (body_of(coupon="none"), key("k-4")),
        (b'{"coupon_name": "plenty", "user_id": "ann"}', key("k-1")),
        (body_of(hold_seconds=60), key("k-1")),
        (body_of(), key("two words")),
        (body_of(), key("a") + key("b")),
        (body_of(), key("")),
        (body_of(user=None), key("k-5")),
        (body_of(type="welcome"), key("k-5")),
        (body_of("cleo"), key("k-5")),
    ]
    told, ordinary = await both_ways(tmp_path, None, requests)
    assert statuses(told) == [201, 201, 422, 201, 409, 409, 404, 404, 201, 422, 400, 400, 400, 400, 400, 201]
    assert [b"Idempotency-Replayed: true" in each for each in told] == [
        *(number in {1, 5, 8} for number in range(len(told)))
    ]
    assert ordinary == 0


async def test_answers_to_users_with_tokens_are_those_of_the_ordinary_way(tmp_path: Path) -> None:
    ann = bearer(_ISSUER.token("ann"))
    requests = [
        (body_of(), ann),
        (body_of(user=None), ann),
        (body_of("ben"), ann),
        (body_of("ben"), bearer(_ISSUER.token("ben")) + key("k-1")),
        (body_of("ben"), bearer(_ISSUER.token("ben")) + key("k-1")),
        (body_of(user=None, coupon="last"), bearer(_ISSUER.token("cleo")) + key("k-1")),
        (body_of(user=None, coupon="last"), ann + key("k-1")),
        (body_of(), ""),
        (body_of(), "Authorization: Basic YTpi\r\n"),
        (body_of(), bearer("")),
        (body_of(), bearer("a.b.c")),
        (body_of(), bearer(_ISSUER.token(exp=1))),
        (body_of(), bearer(_ISSUER.token(aud="others"))),
        (body_of(), bearer(_ISSUER.token()[:-8] + "AAAAAAAA")),
        (body_of("dan"), f"Authorization: {ADMIN['Authorization']}\r\n"),
        (b"[]", ann),
    ]
    told, ordinary = await both_ways(tmp_path, _ISSUER, requests)
    assert statuses(told) == [201, 409, 403, 201, 201, 201, 409, 401, 401, 401, 401, 401, 401, 401, 201, 400]
    assert ordinary == 0


async def test_what_must_be_looked_up_is_left_to_the_ordinary_way_with_its_body(tmp_path: Path) -> None:
    requests = [
        (body_of(), bearer("key-for-claims:write")),
        (body_of("ben"), bearer(_ISSUER.token("ben"))),
        (body_of("ben"), bearer("key-for-claims:read") + key("k-1")),
        (body_of("cleo"), bearer("key-for-claims:write") + key("k-1")),
        (body_of("cleo"), bearer("no-such-key")),
        (body_of("cleo"), bearer(Issuer("another").token("cleo"))),
        (body_of("dan"), bearer("key-for-claims:write")),
        (body_of("eve"), bearer("key-for-claims:write")),
    ]
    # More than the cap allows at once, so that no place may be kept by what is left.
    told, ordinary = await both_ways(tmp_path, _ISSUER, requests, quotas=_QUOTAS)
    assert statuses(told) == [201, 201, 403, 201, 401, 401, 201, 201]
    assert ordinary == 7


async def test_answers_within_and_beyond_quotas_are_those_of_the_ordinary_way(tmp_path: Path) -> None:
    far = "X-Forwarded-For: 192.0.2.1\r\n"
    requests = [
        *((body_of(), f"{far}X-Request-ID: r-{number}\r\n") for number in range(4)),
        (body_of("ben"), far),
        (body_of("cleo"), far + key("two words")),
        (body_of("dan"), far),
        (body_of("dan"), "X-Forwarded-For: 2001:db8::1\r\n"),
        (body_of("dan", coupon="none"), f"Origin: {SHOP}\r\n"),
        (b"{}", far),
    ]
    told, ordinary = await both_ways(tmp_path, None, requests, quotas=_QUOTAS)
    assert statuses(told) == [201, 409, 409, 429, 201, 400, 429, 201, 404, 400]
    assert [b"RateLimit-Policy" in each for each in told] == [*[True] * 5, False, *[True] * 3, False]
    assert b'RateLimit: "address";r=2;t=3, "user";r=0;t=3\r\nRetry-After' not in told[3]
    assert b'"violated-policies":["user"]' in told[3]
    assert b'"violated-policies":["address"]' in told[6]
    assert ordinary == 0


_USERS = ("ann", "ben", "cleo")
_TOKENS = {user: _ISSUER.token(user) for user in _USERS}
_CREDENTIALS = {
    **{bearer(token): False for token in _TOKENS.values()},
    "": False,
    bearer("a.b.c"): False,
    bearer(_ISSUER.token("ann", exp=1)): False,
    bearer(_ISSUER.token("ann", sub="two words")): False,
    bearer(_ISSUER.token("ann", tier="gold", groups=["a", {}], nbf=1, iat=1)): False,
    f"Authorization: {ADMIN['Authorization']}\r\n": False,
    bearer("key-for-claims:write"): True,
    bearer("key-for-claims:read"): True,
    bearer(Issuer("another").token("ann")): True,
}
"""Whether something must be looked up to know the caller."""
_bodies = st.one_of(
    st.builds(
        body_of,
        st.sampled_from((*_USERS, None, "two words")),
        st.sampled_from(("plenty", "last", "none")),
    ),
    st.builds(lambda user: json.dumps({"user_id": user, "type": None}).encode(), st.sampled_from(_USERS)),
    st.builds(lambda user, value: body_of(user, x=value), st.sampled_from(_USERS), st.none() | st.text(max_size=3)),
    st.builds(
        lambda user, value: body_of(user, attributes={"a": value}),
        st.sampled_from(_USERS),
        st.integers(-5, 5) | st.text(max_size=3) | st.floats(allow_nan=False, width=16),
    ),
    st.builds(lambda seconds: body_of("ann", hold_seconds=seconds), st.integers(-1, 100_000)),
    st.binary(max_size=40),
)
_keys = st.one_of(
    st.just(""),
    st.sampled_from([key(value) for value in ("k", '"k"', "k2", "", '""', '"a\\"b"', "a" * 256, "k, k", "\xe9")]),
    st.just(key("k") + key("k")),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=6).map(key),
)
_others = st.lists(
    st.sampled_from(
        (
            "X-Request-ID: mine\r\n",
            "X-Request-ID: two words\r\n",
            f"Origin: {SHOP}\r\n",
            "Origin: https://else.example\r\n",
            "X-Forwarded-For: 192.0.2.1\r\n",
            "X-Forwarded-For: unknown\r\n",
            "X-Forwarded-For: 192.0.2.1, 192.0.2.7\r\n",
            "Prefer: return=minimal\r\n",
        )
    ),
    max_size=2,
    unique_by=lambda line: line.partition(":")[0],
).map("".join)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(
        st.tuples(_bodies, st.sampled_from(sorted(_CREDENTIALS)), _keys, _others), min_size=1, max_size=6
    ),
    with_tokens=st.booleans(),
    quotas=st.sampled_from(((), _QUOTAS, _QUOTAS[1:])),
)
def test_any_claim_is_answered_as_on_the_ordinary_way(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[bytes, str, str, str]],
    with_tokens: bool,
    quotas: Any,
) -> None:
    """Whatever its body, credentials, key and other headers are, and whatever was asked before it."""
    sent = [(body, credentials + keys + others) for body, credentials, keys, others in requests]
    left = sum(_CREDENTIALS[credentials] for _, credentials, _, _ in requests) if with_tokens else 0
    folder, issuer = tmp_path_factory.getbasetemp(), _ISSUER if with_tokens else None
    told, ordinary = asyncio.run(both_ways(folder, issuer, sent, quotas=quotas))
    assert len(told) == len(sent)
    assert ordinary == left


@pytest.mark.parametrize("content_type", [EXPRESS, ORDINARY])
async def test_a_repetition_waits_for_its_first_request_on_either_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    """Whichever way the first one went."""
    gate = Gate()
    await gate.create_coupon("plenty", 10, StrategyName.REDLOCK)
    strategy = MemoryStrategy(gate)
    async with (
        guarded(content_type, None, tmp_path, strategy=strategy, under_way=None) as service,
        AsyncExitStack() as stack,
    ):

        async def ask(user: str, kind: str) -> asyncio.StreamReader:
            wire = await stack.enter_async_context(connected(service.port))
            await wire.send(claim_request(body_of(user), kind, key("k")))
            return wire.reader

        first = await ask("ann", content_type)
        await gate.asked.wait()
        answer = await read_answer(await ask("ben", EXPRESS))
        assert (answer.status, answer.body["type"]) == (422, "/problems/key-reused")
        with monkeypatch.context() as patch:
            patch.setattr(idempotency, "_WAIT_SECONDS", 0.05)
            for kind in (EXPRESS, ORDINARY):
                answer = await read_answer(await ask("ann", kind))
                assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
        repeated = [await ask("ann", kind) for kind in (EXPRESS, ORDINARY)]
        await asyncio.sleep(0.05)
        gate.open.set()
        answers = [await read_answer(reader) for reader in (first, *repeated)]
        assert [answer.status for answer in answers] == [201] * 3
        assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [None, "true", "true"]
        assert len({answer.headers["Location"] for answer in answers}) == 1
        assert len(gate.claims_of["plenty"]) == 1


async def test_a_key_that_goes_takes_its_verified_tokens_with_it(tmp_path: Path) -> None:
    old, new = Issuer("old"), Issuer("new")
    async with guarded(EXPRESS, old, tmp_path) as service:
        assert service.tokens is not None
        sent = bearer(old.token("ann"))
        assert statuses(await service.ask((body_of(), sent), (body_of(), sent))) == [201, 409]
        keys_in(tmp_path, new)
        await service.tokens.refresh()
        assert statuses(await service.ask((body_of(), sent))) == [401]
        assert statuses(await service.ask((body_of(), bearer(new.token("ann"))))) == [409]


async def test_a_claim_whose_quota_is_being_asked_is_answered_by_a_server_that_stops(tmp_path: Path) -> None:
    async with guarded(EXPRESS, None, tmp_path, quotas=_QUOTAS) as service:
        assert service.quotas is not None
        asked = asyncio.Event()
        count = service.quotas.begin

        def late(subjects: Any) -> Any:
            asked.set()
            pending = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.3, lambda: count(subjects).add_done_callback(take_over(pending)))
            return pending

        def take_over(pending: Any) -> Any:
            return lambda found: pending.set_result(found.result())

        service.quotas.begin = late  # type: ignore[method-assign]
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(claim_request(body_of()))
        await asked.wait()
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    assert answer.headers["RateLimit"] == '"address";r=5;t=3, "user";r=2;t=3'
    writer.close()


async def test_a_claim_whose_client_hangs_up_while_its_quota_is_asked_is_made_and_its_place_given_back(
    tmp_path: Path,
) -> None:
    async with guarded(EXPRESS, None, tmp_path, quotas=(Quota("user", 100, 60),)) as service:
        for number in range(4):  # more than the cap
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(claim_request(body_of(f"user-{number}")))
            await asyncio.sleep(0)
            writer.transport.abort()
        reached = len(service.store.claims_of["plenty"])
        assert statuses(await service.ask((body_of(), ""))) == [201]
        await until(lambda: len(service.store.claims_of["plenty"]) >= reached + 1, "the claims are made")


async def test_a_defect_of_the_quotas_is_an_internal_error_and_no_request_hangs(tmp_path: Path) -> None:
    told = []
    for content_type in (EXPRESS, ORDINARY):
        async with guarded(content_type, None, tmp_path, quotas=_QUOTAS) as service:
            assert service.quotas is not None
            service.quotas.is_defect = True
            told += await service.ask((body_of(), "X-Request-ID: mine\r\n"))
    assert statuses(told) == [500, 500]
    assert told[0] == told[1]


async def test_users_whose_tokens_arrive_together_each_claim_for_themselves(tmp_path: Path) -> None:
    users = [f"user-{number}" for number in range(40)]
    async with guarded(EXPRESS, _ISSUER, tmp_path, under_way=None) as service, AsyncExitStack() as stack:
        assert statuses(await service.ask((body_of(), bearer(_ISSUER.token("ann"))))) == [201]
        wires = [await stack.enter_async_context(connected(service.port)) for _ in users]
        with ordinary_requests() as ordinary:
            for user, wire in zip(users, wires, strict=True):
                # Some send the token of another user, and some hang up.
                named = bearer(_ISSUER.token(user if user[-1] != "3" else "eve", jti=user))
                await wire.send(claim_request(body_of(user), more=named))
                if user[-1] == "7":
                    wire.writer.transport.abort()
            answers = {user: await wire.answer() for user, wire in zip(users, wires, strict=True) if user[-1] != "7"}
        assert {user: answer and answer.status for user, answer in answers.items()} == {
            user: 403 if user[-1] == "3" else 201 for user in answers
        }
        assert [
            json.loads(answer.body)["user_id"] for answer in answers.values() if answer and answer.status == 201
        ] == [user for user in answers if user[-1] != "3"]
        assert ordinary == []


async def test_a_claim_whose_token_is_being_verified_is_answered_by_a_server_that_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarded(EXPRESS, _ISSUER, tmp_path) as service:
        assert service.tokens is not None
        asked = asyncio.Event()
        user_soon = service.tokens.user_soon

        def late(token: str) -> Any:
            asked.set()
            pending = asyncio.get_running_loop().create_future()
            found = user_soon(token)
            asyncio.get_running_loop().call_later(0.3, pending.set_result, found)
            return pending

        monkeypatch.setattr(service.tokens, "user_soon", late)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(claim_request(body_of(), more=bearer(_ISSUER.token("ann"))))
        await asked.wait()
    answer = await read_answer(reader)
    assert (answer.status, answer.headers["Connection"]) == (201, "close")
    writer.close()
