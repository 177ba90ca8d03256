"""`Try it out` in /docs, as it stands: each operation's examples are sent to a service with the coupon `demo`."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.support.admin import ADMIN


async def try_all(url: str, headers: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """Send each operation as the page fills it in, in the order of the document. Returns its status and its body."""
    found = {}
    async with aiohttp.ClientSession(headers=headers) as client:
        async with client.get(f"{url}/openapi.json") as response:
            paths = (await response.json())["paths"]
        for path, operations in paths.items():
            for method, operation in operations.items():
                for kind, request in _requests(path, operation):
                    async with client.request(method, url + request.pop("path"), **request) as response:
                        found[f"{method.upper()} {path}{kind}"] = response.status, await response.text()
                        assert str(response.status) in operation["responses"], path
    return found


def _requests(path: str, operation: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The requests of an operation: one for each form of its body."""
    request: dict[str, Any] = {"params": {}, "headers": {}}
    for parameter in operation["parameters"]:
        if "example" not in parameter:
            assert not parameter["required"], parameter
        elif parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", quote(parameter["example"], safe=""))
        else:
            request["params" if parameter["in"] == "query" else "headers"][parameter["name"]] = parameter["example"]
    request["path"] = path
    forms = operation.get("requestBody", {}).get("content", {})
    if not forms:
        return [("", request)]
    return [
        (f" {kind}" if len(forms) > 1 else "", _with_body(request, kind, example))
        for kind, form in forms.items()
        if (example := _example(form)) is not None
    ]


def _example(form: dict[str, Any]) -> Any:
    return form.get("example", next((each["value"] for each in form.get("examples", {}).values()), None))


def _with_body(request: dict[str, Any], kind: str, example: Any) -> dict[str, Any]:
    body = {"json": example} if kind == "application/json" else {"data": str(example).encode()}
    headers = request["headers"] if kind == "application/json" else {**request["headers"], "Content-Type": kind}
    return {**request, **body, "headers": headers}


# What an example cannot name, because only the service gives it: ids of claims and tickets, claimed codes, locks.
NEEDS_MORE = {
    "GET /api/coupons/claim": "unknown-coupon",
    "PATCH /api/coupons/claim": "unknown-coupon",
    "GET /api/claims/{id}": "unknown-claim",
    "DELETE /api/claims/{id}": "unknown-claim",
    "POST /api/claims/{id}/confirm": "unknown-claim",
    "POST /api/claims/{id}/redeem": "unknown-claim",
    "POST /api/claims/{id}/unredeem": "unknown-claim",
    "POST /api/codes/{code}/redeem": "code-not-claimed",
    "POST /api/codes/{code}/unredeem": "not-redeemed",
    "DELETE /api/locks/{coupon_name}": "lock-not-held",
    "GET /api/tickets/{id}": "unknown-ticket",
    "GET /api/tickets/{id}/events": "unknown-ticket",
    "DELETE /api/tickets/{id}": "unknown-ticket",
    "GET /api/coupons/{name}/draw": "no-draw",
    "POST /api/dead-letters/{id}/requeue": "unknown-ticket",
    "DELETE /api/dead-letters/{id}": "unknown-ticket",
    "GET /api/users/me/claims": "forbidden",
}


def refused(answers: Mapping[str, tuple[int, str]]) -> dict[str, str]:
    """The operations that were refused, and with which problem."""
    return {
        name: json.loads(body)["type"].rpartition("/")[2] for name, (status, body) in answers.items() if status >= 400
    }


async def test_with_a_key_each_operation_works_as_it_is_filled_in(demo_url: str) -> None:
    assert refused(await try_all(demo_url, ADMIN)) == NEEDS_MORE
    # A second time, some of it exists; but nothing that is filled in, such as a key of idempotency, is wrong by then.
    again = await try_all(demo_url, ADMIN)
    assert {status for status, _ in again.values()} <= {200, 201, 403, 404, 409, 422}
    assert {why for name, why in refused(again).items() if again[name][0] == 422} <= {"rows-refused"}


async def test_without_a_key_users_operations_work_and_the_others_say_that_they_need_one(demo_url: str) -> None:
    async with aiohttp.ClientSession() as client, client.get(f"{demo_url}/openapi.json") as response:
        paths = (await response.json())["paths"]
    secured = {
        f"{method.upper()} {path}"
        for path, operations in paths.items()
        for method, operation in operations.items()
        if operation.get("security")
    }
    answers = await try_all(demo_url, {})
    found = refused(answers)
    assert {name.split()[0] + " " + name.split()[1] for name, why in found.items() if why == "unauthorized"} == {
        *secured,
        "GET /api/users/me/claims",
    }
    others = {name: why for name, why in found.items() if why != "unauthorized"}
    assert others == {name: why for name, why in NEEDS_MORE.items() if name in others}
    assert answers["POST /api/coupons/claim"][0] == 201


async def test_the_coupon_that_is_archived_is_not_the_one_that_is_tried(demo_url: str) -> None:
    await try_all(demo_url, ADMIN)
    async with aiohttp.ClientSession() as client:
        claim = {"coupon_name": "demo", "user_id": "another"}
        async with client.post(f"{demo_url}/api/coupons/claim", json=claim) as response:
            assert response.status == 201
