"""Rules that refuse everybody, or never apply, are refused, or warned of in the answer; by the command line as well."""

from typing import Any

import pytest

from claimsvc.domain import StrategyName
from tests.http.asking import create
from tests.http.memory_services import Service
from tests.support.admin import ADMIN
from tests.support.program import claimsvc_here

PAST, FUTURE = "2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"


async def change(service: Service, name: str, body: Any) -> tuple[int, Any]:
    async with service.client.patch(f"{service.url}/api/coupons/{name}", json=body, headers=ADMIN) as response:
        return response.status, await response.json()


WARNED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"ends_at": FUTURE, "rules": {"holds": ["plenty"], "holds_not": ["last"]}}, []),
    ({"rules": {"attributes": [{"name": "age", "at_least": 19, "at_most": 19, "one_of": [19]}]}}, []),
    ({"ends_at": PAST}, ["#/ends_at"]),
    ({"rules": {"holds": ["new"]}}, ["#/rules/holds/0"]),
    ({"rules": {"holds_not": ["last", "new"]}}, ["#/rules/holds_not/1"]),
    ({"rules": {"holds": ["plenti"]}}, ["#/rules/holds/0"]),
    ({"rules": {"holds_not": ["plenti", "last", "lats"]}}, ["#/rules/holds_not/0", "#/rules/holds_not/2"]),
    ({"rules": {"attributes": [{"name": "a"}, {"name": "b", "source": "token"}]}}, ["#/rules/attributes/1/source"]),
    ({"per_user_limit": 3, "claims_per_user": 2}, ["#/claims_per_user"]),
    ({"per_user_limit": 3, "claims_per_user": 3}, []),
]


@pytest.mark.parametrize(("terms", "pointers"), WARNED)
async def test_terms_that_hardly_anybody_means_are_warned_of_where_they_stand(
    service: Service, terms: dict[str, Any], pointers: list[str]
) -> None:
    status, body, _ = await create(service, {"name": "new", "amount": 1, **terms})
    assert (status, [warning["pointer"] for warning in body["warnings"]]) == (201, pointers)
    await service.store.create_coupon("other", 1, StrategyName.REDLOCK)
    renamed = {pointer for pointer in pointers if "new" not in str(terms)}
    status, body = await change(service, "other", terms)
    assert status == 200
    assert renamed <= {warning["pointer"] for warning in body["warnings"]}
    assert all(warning["detail"].endswith(".") for warning in body["warnings"])


async def test_a_change_of_what_is_archived_is_warned_of(service: Service) -> None:
    async with service.client.post(f"{service.url}/api/coupons/last/archive", headers=ADMIN) as response:
        assert (response.status, "warnings" in await response.json()) == (200, False)
    status, body = await change(service, "last", {"paused": False})
    assert (status, [warning["pointer"] for warning in body["warnings"]]) == (200, ["#"])


@pytest.mark.parametrize(
    ("rules", "pointer"),
    [
        ({"attributes": [{"name": "age", "at_least": 20, "at_most": 19}]}, "#/rules/attributes/0"),
        ({"attributes": [{"name": "a"}, {"name": "a", "one_of": [1], "none_of": [1, 2]}]}, "#/rules/attributes/1"),
        ({"attributes": [{"name": "age", "one_of": ["KR"], "at_least": 19}]}, "#/rules/attributes/0"),
        ({"attributes": [{"name": "age", "one_of": [True], "at_least": 1}]}, "#/rules/attributes/0"),
        ({"holds": ["a", "b"], "holds_not": ["b"]}, "#/rules"),
    ],
)
async def test_a_rule_that_nobody_can_ever_meet_is_refused(service: Service, rules: Any, pointer: str) -> None:
    status, problem, _ = await create(service, {"name": "new", "amount": 1, "rules": rules})
    assert (status, [error["pointer"] for error in problem["errors"]]) == (400, [pointer])
    assert " must " in problem["errors"][0]["detail"]


def test_the_command_line_warns_on_standard_error(database_url: str) -> None:
    def coupon(*words: str) -> tuple[int, str, str]:
        told = claimsvc_here("coupon", *words, CLAIMSVC_DATABASE_URL=database_url)
        return told.returncode, told.stdout, told.stderr

    assert coupon("create", "a", "--amount", "1") == (0, "Created a with 1 units.\n", "")
    rules = '{"holds_not": ["aa", "a"]}'
    status, shown, warned = coupon("create", "b", "--amount", "1", "--ends-at", PAST, "--rules", rules)
    assert (status, shown) == (0, "Created b with 1 units.\n")
    assert [line.split()[2] for line in warned.splitlines()] == ["#/ends_at:", "#/rules/holds_not/0:"]
    status, _, warned = coupon("change", "a", "--rules", '{"holds": ["a"]}')
    assert (status, "warning: at #/rules/holds/0: This is the coupon itself" in warned) == (0, True)
    status, _, refused = coupon("change", "a", "--rules", '{"holds": ["b"], "holds_not": ["b"]}')
    assert (status, "`holds` and `holds_not` must not name the same" in " ".join(refused.split())) == (2, True)
