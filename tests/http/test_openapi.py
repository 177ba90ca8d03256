"""The OpenAPI document: true to the service, made from the models that validate, and drawn without another host."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from openapi_pydantic import OpenAPI
from uuid_utils.compat import uuid7

from claimsvc.domain import COUPON_NAME_PATTERN, MAX_AMOUNT
from claimsvc.http.framework.routing import Route
from claimsvc.http.routes import ROUTES
from claimsvc.http.server.problems import PROBLEMS
from tests.http.memory_services import Service
from tests.support.admin import ADMIN
from tests.support.documented import undocumented

_EXAMPLES = os.environ.get("OPENAPI_EXAMPLES", "20")
# It is work for a quarter of a minute, of which a busy machine may make several; a hang is longer.
_DEADLINE_SECONDS = 540.0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_service_does_what_its_document_says(service_url: str, tmp_path: Path) -> None:
    """Schemathesis, with every check it has: what the document allows is answered as it says, the rest refused.

    Here it is a sample, with few examples of each operation: OPENAPI_EXAMPLES is how many.
    Sequences of operations are tried by tests/faults/hostile. Its command line rather than its pytest plugin, which
    pytest 9.2 has left behind.
    """
    # A key that is used again for something else is refused, as its draft asks for, however valid the request is.
    (tmp_path / "schemathesis.toml").write_text(
        'hooks = "tests.support.schemathesis_hooks"\n'
        "[checks.positive_data_acceptance]\n"
        'expected-statuses = ["2xx", "401", "403", "404", "409", "410", "422", "5xx"]\n'
    )
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
            *("run", f"{service_url}/openapi.json", "--checks", "all", "--max-examples", _EXAMPLES, "--seed", "1"),
            *("--phases", "examples,coverage,fuzzing"),
            *("--header", f"Authorization: {ADMIN['Authorization']}", "--no-color", "--warnings", "off"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=_DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d+) generated, \1 passed", done.stdout), done.stdout


async def document(service: Service) -> dict[str, Any]:
    async with service.client.get(f"{service.url}/openapi.json") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def test_the_document_is_openapi_3_1(service: Service) -> None:
    found = await document(service)
    assert found["openapi"].startswith("3.1.")
    OpenAPI.model_validate(found)


async def test_each_documented_route_is_in_the_document_once(service: Service) -> None:
    paths = (await document(service))["paths"]
    described = {(method.upper(), path) for path, operations in paths.items() for method in operations}
    assert described == {(route.method, route.path) for route in ROUTES if route.documented}
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(set(ids)) == len(ids)


async def test_the_document_s_rules_are_those_of_the_models(service: Service) -> None:
    schemas = (await document(service))["components"]["schemas"]
    create = schemas["CreateCoupon"]
    assert create["properties"]["name"]["pattern"] == COUPON_NAME_PATTERN
    assert create["properties"]["amount"]["maximum"] == MAX_AMOUNT
    assert create["additionalProperties"] is False
    assert create["required"] == ["name", "amount"]


async def test_every_example_is_valid(service: Service) -> None:
    """Those of bodies, parameters and members of schemas, against their schemas."""
    found = await document(service)
    checked = 0

    def check(schema: dict[str, Any], example: Any, where: str) -> None:
        nonlocal checked
        checked += 1
        validator = jsonschema_rs.validator_for({"components": found["components"], **schema})
        assert [error.message for error in validator.iter_errors(example)] == [], where

    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            for parameter in operation["parameters"]:
                if "example" in parameter:
                    check(parameter["schema"], parameter["example"], f"{where} {parameter['name']}")
            answers = [content for answer in operation["responses"].values() for content in answer["content"].values()]
            for content in [*operation.get("requestBody", {}).get("content", {}).values(), *answers]:
                examples = [content["example"]] if "example" in content else []
                examples += [example["value"] for example in content.get("examples", {}).values()]
                for example in examples:
                    check(content["schema"], example, f"{where} {example}")
    for name, schema in found["components"]["schemas"].items():
        for member, described in schema.get("properties", {}).items():
            for example in described.get("examples", ()):
                check(described, example, f"{name} {member}")
    assert checked > 100


@pytest.mark.parametrize("route", [route for route in ROUTES if route.documented and route.model("body") is not None])
async def test_each_body_has_an_example_that_its_operation_accepts(service: Service, route: Route) -> None:
    """What "Try it out" sends is not refused as invalid."""
    model = route.model("body")
    assert model is not None
    assert model.EXAMPLE
    model.model_validate_json(orjson.dumps(dict(model.EXAMPLE)))
    operation = (await document(service))["paths"][route.path][route.method.lower()]
    assert operation["requestBody"]["content"]["application/json"]["example"] == model.EXAMPLE
    path = route.path.format(name="plenty", coupon_name="plenty", code="C-1", id=uuid7())
    async with service.client.request(
        route.method, service.url + path, json=dict(model.EXAMPLE), headers=ADMIN
    ) as response:
        assert response.status not in (400, 415, 422), await response.text()


async def test_the_document_has_every_status_that_claiming_is_answered_with(service: Service) -> None:
    answers = (await document(service))["paths"]["/api/coupons/claim"]["post"]["responses"]
    content = {status: answers[status]["content"]["application/json"] for status in ("200", "201")}
    assert content["200"] == content["201"] == {"schema": {"$ref": "#/components/schemas/ClaimBody"}}
    assert {"400", "401", "403", "404", "408", "409", "413", "415", "422", "429", "503"} <= set(answers)


def test_a_status_that_the_document_lacks_is_noticed() -> None:
    claiming = "POST", "/api/coupons/claim"
    assert undocumented(*claiming, 200) is undocumented(*claiming, 201) is None
    assert undocumented(*claiming, 203) == "POST /api/coupons/claim was answered 203, which is not documented"
    assert undocumented("HEAD", "/api/coupons/plenty", 200) is None
    assert undocumented("GET", "/api/coupons/plenty", 409) is not None
    assert undocumented("DELETE", "/api/coupons/plenty", 405) is None
    assert undocumented("DELETE", "/api/coupons/plenty", 200) is not None
    assert undocumented("GET", "/console", 418) is None


async def test_links_lead_from_a_new_coupon_to_its_claim_and_back(service: Service) -> None:
    paths = (await document(service))["paths"]
    operations = {
        operation["operationId"]: (method, path, operation)
        for path, found in paths.items()
        for method, operation in found.items()
    }

    async def ask(operation_id: str, parameters: dict[str, str], body: dict[str, Any] | None) -> dict[str, Any]:
        """Carry out an operation, and everything that its answer links to; the result is the answer's body."""
        method, path, operation = operations[operation_id]
        async with service.client.request(
            method, service.url + path.format(**parameters), json=body, headers=ADMIN
        ) as r:
            assert r.status in (200, 201)
            answer: dict[str, Any] = await r.json()
            links = operation["responses"][str(r.status)].get("links", {})
        for link in links.values():
            given = {name: answer[value.rpartition("/")[2]] for name, value in link.get("parameters", {}).items()}
            next_body = link.get("requestBody")
            if next_body is not None:
                next_body = {"user_id": "ann", **{n: answer[v.rpartition("/")[2]] for n, v in next_body.items()}}
            followed.append(link["operationId"])
            await ask(link["operationId"], given, next_body)
        return answer

    followed: list[str] = []
    await ask("create_coupon", {}, {"name": "linked", "amount": 5})
    assert followed == ["get_coupon", "list_claims", "claim_coupon", "get_claim", "get_coupon", "list_claims"]


async def test_only_what_operators_do_asks_for_a_key(service: Service) -> None:
    paths = (await document(service))["paths"]
    secured = {
        operation["operationId"]
        for operations in paths.values()
        for operation in operations.values()
        if operation.get("security")
    }
    assert secured == {
        "create_coupon",
        "change_coupon",
        "change_coupon_named_claim",
        "archive_coupon",
        "add_codes",
        "generate_codes",
        "redeem_code",
        "unredeem_code",
        "redeem_claim",
        "unredeem_claim",
        "validate_code",
        "list_codes",
        "get_code",
        "count_codes",
        "put_allow_list",
        "put_deny_list",
        "delete_allow_list",
        "delete_deny_list",
        "list_locks",
        "release_lock",
        "list_queues",
        "list_tickets",
        "pause_queue",
        "resume_queue",
        "list_dead_letters",
        "requeue_dead_letter",
        "discard_dead_letter",
        "list_audit",
        "erase_user",
        "export_claims",
    }


async def test_every_problem_in_the_document_is_explained(service: Service) -> None:
    for slug, problem in PROBLEMS.items():
        async with service.client.get(f"{service.url}/problems/{slug}") as response:
            assert response.status == 200
            assert (await response.json())["status"] == problem.status
        async with service.client.get(f"{service.url}/problems/{slug}", headers={"Accept": "text/html"}) as response:
            assert response.content_type == "text/html"
            assert problem.title in await response.text()
    async with service.client.get(f"{service.url}/problems/no-such") as response:
        assert response.status == 404


async def test_docs_ask_no_other_host_for_anything(service: Service) -> None:
    """The page names only files that are served here, and its policy lets a browser load nothing else."""
    async with service.client.get(f"{service.url}/docs") as response:
        assert response.status == 200
        policy = response.headers["Content-Security-Policy"]
        page = await response.text()
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "//" not in page.replace("<!DOCTYPE html>", "")
    names = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(names) >= 4
    for name in names:
        async with service.client.get(f"{service.url}/{name}") as response:
            assert response.status == 200, name
            assert await response.read()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)


async def test_docs_are_sent_once(service: Service) -> None:
    url = f"{service.url}/docs/swagger-ui.css"
    async with service.client.get(url) as response:
        tag = response.headers["ETag"]
    async with service.client.get(url, headers={"If-None-Match": tag}) as response:
        assert response.status == 304
    async with service.client.get(f"{service.url}/docs/..%2Findex.py") as response:
        assert response.status == 404


async def test_the_document_tells_of_quotas_in_their_draft_s_words(service: Service) -> None:
    found = await document(service)
    answers = found["paths"]["/api/coupons/claim"]["post"]["responses"]
    assert {"RateLimit", "RateLimit-Policy"} <= answers["201"]["headers"].keys()
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= answers["429"]["headers"].keys()
    assert "violated-policies" in found["components"]["schemas"]["QuotaExceededBody"]["required"]
