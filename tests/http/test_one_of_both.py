"""A claim names exactly one of a coupon and a type, whichever way it comes in; `null` is a type: that of none."""

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.http.memory_services import Service

_KEYED = {"Idempotency-Key": "k"}
# The fast path takes plain JSON only.
_ORDINARY = {"Content-Type": "application/json; charset=utf-8"}


async def asked(service: Service, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    async with service.client.post(f"{service.url}/api/coupons/claim", json=body, headers=headers) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize("headers", [{}, _ORDINARY, _KEYED], ids=["fast", "ordinary", "keyed"])
@pytest.mark.parametrize(
    ("names", "pointer", "says"),
    [
        ({}, "#", '"coupon_name": "demo"'),
        ({"coupon_name": "plenty", "type": "welcome"}, "#/type", "not both"),
        ({"coupon_name": "plenty", "type": None}, "#/type", "null"),
        ({"coupon_nam": "plenty"}, "#/coupon_nam", "coupon_name"),
        ({"Type": None}, "#/Type", "type"),
        ({"coupon_name": None}, "#/coupon_name", "demo"),
    ],
)
async def test_what_names_neither_or_both_is_told_what_to_send(
    service: Service, names: dict[str, Any], pointer: str, says: str, headers: dict[str, str]
) -> None:
    status, problem = await asked(service, {"user_id": "ann", **names}, headers)
    assert (status, problem["type"]) == (400, "/problems/bad-request")
    [error] = problem["errors"]
    assert error["pointer"] == pointer
    assert says in error["detail"]
    assert service.store.wants == []
    # The key is free for the request as it was meant.
    status, _ = await asked(service, {"user_id": "ann", "coupon_name": "plenty"}, headers)
    assert status == 201


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.fixed_dictionaries(
        {}, optional={"coupon_name": st.just("plenty"), "type": st.sampled_from([None, "welcome"])}
    ),
    more=st.fixed_dictionaries(
        {}, optional={"hold_seconds": st.sampled_from([None, 60]), "attributes": st.sampled_from([None, {"age": 19}])}
    ),
    headers=st.sampled_from([{}, _ORDINARY]),
)
@example(names={"type": None}, more={}, headers={})
async def test_exactly_one_of_both_is_a_claim_whatever_else_is_sent(
    service: Service, names: dict[str, Any], more: dict[str, Any], headers: dict[str, str]
) -> None:
    status, _ = await asked(service, {"user_id": "ann", **names, **more}, headers)
    assert (status == 400) is (len(names) != 1)
