"""The OpenAPI 3.1 document, generated at start from the routes and the models that validate their inputs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from inspect import cleandoc
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter

from claimsvc import domain
from claimsvc.domain.outcomes import refusals
from claimsvc.domain.problems import BAD_REQUEST, QUOTA_EXCEEDED, UNAVAILABLE, Problem
from claimsvc.http.framework import schemas
from claimsvc.http.framework.auth import Access, Authentication
from claimsvc.http.framework.idempotency import KEY_PATTERN
from claimsvc.http.framework.preferences import PREFER
from claimsvc.http.framework.problem_bodies import NotEligibleBody, RowsRefusedBody, reason_body
from claimsvc.http.framework.rate_limit import DOCUMENTED
from claimsvc.http.framework.refusals import body_of
from claimsvc.http.framework.routing import Route, Success
from claimsvc.http.server.problems import CONTENT_TYPE, HEADERS, BadRequestBody, ProblemBody, UnreadyBody
from claimsvc.http.server.wire import IDEMPOTENCY_KEY, MAX_BODY_BYTES

_REF = "#/components/schemas/{model}"
_KEY = "key"
_USER = "userToken"
_DESCRIPTION = """Claims coupons of limited stock. Under any number of concurrent claims no unit is claimed twice.

Every response has the header `X-Request-ID`: the id that you sent, if it has 1 to 128 letters, digits and `._-`;
otherwise a new one.
Every error is an RFC 9457 problem. Decide by its `type`, which is also the path of an explanation.
A repeated claim never takes a second unit, so you can safely retry a claim whose response was lost.
Every operation can also answer 400 (malformed HTTP), 408 (the headers do not arrive in time), 414 (the request line is
too long), 431 (the headers are too large) and 500 (a defect of the service). A path answers 405, with `Allow`, if it
does not support the method.
If the service names origins (CORS), their pages may use every operation, and OPTIONS answers their preflights.
If it names the hosts under which it may be changed, as one for development does, requests for others are answered 421,
and those from pages of other origins 403."""
_TAGS = {
    "claims": "Claim coupons, and read, confirm, cancel and redeem claims.",
    "tickets": "Follow claims that wait in the queue of a coupon.",
    "coupons": "Create, change and read coupons and their claims.",
    "codes": "Add, generate, read, redeem and count unique codes.",
    "operations": "For operators of the service.",
}

_OF_USERS = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A user's token. Bodies may omit `user_id`; it is the token's subject by default.",
}
_IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": str(IDEMPOTENCY_KEY),
    "in": "header",
    "required": False,
    # No example: the page would fill it in for each request, and the second one would be refused.
    "description": "A unique string, such as the UUID `8e03978e-40d5-43e8-bc93-6894a57f9324`; use a new key for each "
    "new request. If you repeat a request with its key within 24 hours, it is not executed again: you get the stored "
    "response, with `Idempotency-Replayed: true`. Responses that advise to retry, such as 429 and 5xx, are not stored.",
    "schema": {"type": "string", "pattern": f"^[ \\t]*({KEY_PATTERN})[ \\t]*$"},
}

Schemas = dict[type, dict[str, Any]]


def document(routes: Iterable[Route], *, with_tokens: bool) -> bytes:
    """Generate the document, as JSON.

    Args:
        routes: the routes; those that are not `documented` are left out.
        with_tokens: whether users authenticate with tokens.

    Raises:
        pydantic.ValidationError: a route is declared wrongly, so that the document is not valid OpenAPI.
    """
    # Imported here, because the import takes an eighth of the start of `claimsvc`, and only the server needs it.
    from openapi_pydantic import OpenAPI

    shown = [route for route in routes if route.documented]
    references, definitions = _schemas(shown)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in shown:
        paths[route.path][route.method.lower()] = _operation(route, references, with_tokens)
    described = OpenAPI.model_validate(
        {
            "openapi": "3.1.1",
            "info": {
                "title": "claimsvc",
                "version": version("claimsvc"),
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": definitions,
                "securitySchemes": {
                    _KEY: {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "A key with the scope, created by `claimsvc key create`; or a key whose SHA-256 "
                        "is in CLAIMSVC_ADMIN_KEYS.",
                    },
                    **({_USER: _OF_USERS} if with_tokens else {}),
                },
            },
        }
    )
    return orjson.dumps(described.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True))


def _schemas(routes: Sequence[Route]) -> tuple[Schemas, dict[str, Any]]:
    """A reference to each model's schema, and the definitions that the references refer to."""
    answers = {success.body for route in routes for success in route.successes if success.body is not None}
    answers |= {_problem_body(problem, route) for route in routes for problem in route.all_problems()}
    bodies = {model for route in routes if (model := route.model("body")) is not None}
    inputs: list[tuple[type, Literal["validation", "serialization"], TypeAdapter[Any]]] = [
        (model, "serialization", TypeAdapter(model)) for model in answers
    ]
    inputs += [(model, "validation", TypeAdapter(model)) for model in bodies]
    # Sorted, so that the document is the same at each start.
    inputs.sort(key=lambda each: each[0].__name__)
    references, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    return {model: dict(schema) for (model, _), schema in references.items()}, definitions["$defs"]


def _operation(route: Route, references: Schemas, with_tokens: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "tags": [route.tag],
        "summary": route.summary,
        # Cleaned, because Markdown displays indented paragraphs as code.
        "description": cleandoc(route.handler.__doc__ or ""),
        "parameters": [
            *_parameters(route, "path"),
            *_parameters(route, "query"),
            *([_IDEMPOTENCY_KEY] if route.keyed else []),
            *([_prefer(route)] if route.prefer else []),
        ],
        "responses": _responses(route, references),
    }
    body = route.model("body")
    if body is not None:
        operation["requestBody"] = {
            "required": not route.body_is_optional,
            "description": f"At most {MAX_BODY_BYTES} bytes, plain or compressed with gzip.",
            "content": {"application/json": {"schema": references[body], "example": dict(body.EXAMPLE)}},
        }
    if route.streamed is not None:
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {route.streamed.max_bytes} bytes, not compressed; processed while they arrive.",
            "content": {kind: dict(described) for kind, described in route.streamed.content.items()},
        }
    if security := _security(route.access, with_tokens):
        operation["security"] = security
    return operation


def _security(access: Access, with_tokens: bool) -> list[dict[str, list[str]]]:
    """The alternative security requirements; an empty one means that authentication is optional."""
    if access.authentication is Authentication.NEVER or (
        access.authentication is not Authentication.ALWAYS and not with_tokens
    ):
        return []
    found: list[dict[str, list[str]]] = [{_USER: []}] if access.for_users else []
    found.append({_KEY: [access.scope] if access.scope is not None else []})
    return [{}, *found] if access.authentication is Authentication.OPTIONAL else found


def _parameters(route: Route, place: str) -> list[dict[str, Any]]:
    model = route.model(place)
    if model is None:
        return []
    schema = TypeAdapter(model).json_schema(ref_template=_REF)
    found = []
    for name, field in schema["properties"].items():
        kept = {key: value for key, value in field.items() if key not in {"title", "description", "examples"}}
        parameter = {
            "name": name,
            "in": place,
            "required": name in schema.get("required", ()),
            "description": field.get("description"),
            "schema": {key: value for key, value in kept.items() if (key, value) != ("default", "")},
        }
        # The page fills in an example. What may be left out is left out, as a filter or a cursor would find nothing.
        if "examples" in field and parameter["required"]:
            parameter["example"] = field["examples"][0]
            if field.get("format") == "uuid":
                parameter["description"] += ", as answers have it in `id`; no claim has the example's"
        elif "examples" in field:
            parameter["schema"]["examples"] = field["examples"]
        found.append(parameter)
    return found


def _prefer(route: Route) -> dict[str, Any]:
    return {
        "name": str(PREFER),
        "in": "header",
        "required": False,
        "description": f"{route.prefer} (RFC 7240). Other preferences are ignored.",
        "schema": {"type": "string"},
    }


def _responses(route: Route, references: Schemas) -> dict[str, Any]:
    found: dict[str, Any] = {str(success.status): _success_response(success, references) for success in route.successes}
    of_status: dict[int, list[Problem]] = defaultdict(list)
    for problem in route.all_problems():
        of_status[problem.status].append(problem)
    for status, several in sorted(of_status.items()):
        found[str(status)] = _problem_response(several, route, references)
    return found


def _success_response(success: Success, references: Schemas) -> dict[str, Any]:
    content = {
        kind: {"schema": references[success.body]} if success.body is not None and kind == "application/json" else {}
        for kind in success.content_types
    }
    return {
        "description": success.description,
        "headers": _headers(success.headers or {}),
        "content": content,
        **({"links": success.links} if success.links else {}),
    }


def _problem_response(several: Sequence[Problem], route: Route, references: Schemas) -> dict[str, Any]:
    models = list(dict.fromkeys(_problem_body(problem, route) for problem in several))
    schema = references[models[0]] if len(models) == 1 else {"anyOf": [references[model] for model in models]}
    own_headers = {name: "see RFC 9110" for problem in several for name in HEADERS.get(problem, {})}
    if any(problem.status in (429, 503) for problem in several):
        own_headers["Retry-After"] = "whole seconds, at least 1"
    if QUOTA_EXCEEDED in several:
        own_headers |= DOCUMENTED
    return {
        "description": " Or: ".join(f"`{problem.slug}`: {problem.meaning}" for problem in several),
        "headers": _headers(own_headers),
        "content": {
            CONTENT_TYPE: {
                "schema": schema,
                "examples": {problem.slug: {"value": _example(problem, route)} for problem in several},
            }
        },
    }


_BODIES: dict[Problem, type[ProblemBody]] = {
    QUOTA_EXCEEDED: schemas.QuotaExceededBody,
    BAD_REQUEST: BadRequestBody,
    **{problem: body_of(kind) for kind, problem in refusals()},
}
_CLAIM_EXAMPLE = {
    "id": "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90",
    "coupon_name": "demo",
    "user_id": "user-1",
    "claimed_at": "2026-01-02T03:04:05Z",
    "expires_at": None,
    "code": None,
}
_TICKET_EXAMPLE = {
    "id": "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90",
    "coupon_name": "demo",
    "user_id": "user-1",
    "state": "started",
    "position": 0,
    "ahead": None,
    "eta_seconds": None,
    "stopped": None,
    "joined_at": "2026-01-02T03:04:05Z",
    "started_at": "2026-01-02T03:04:15Z",
    "ended_at": None,
    "outcome": None,
}
_OF_A_CLAIM = {
    "already-claimed": {**_CLAIM_EXAMPLE, "state": "active", "ended_at": None},
    "claim-cancelled": {**_CLAIM_EXAMPLE, "state": "cancelled", "ended_at": "2026-01-02T03:09:05Z"},
    "claim-ended": {**_CLAIM_EXAMPLE, "state": "cancelled", "ended_at": "2026-01-02T03:09:05Z"},
    "hold-expired": {**_CLAIM_EXAMPLE, "state": "expired", "ended_at": "2026-01-02T03:09:05Z"},
}


def _problem_body(problem: Problem, route: Route) -> type[ProblemBody]:
    """The class of a problem's body on a route."""
    if problem is UNAVAILABLE and route.path == "/readyz":
        return UnreadyBody
    return _BODIES.get(problem, ProblemBody)


def _example(problem: Problem, route: Route) -> dict[str, Any]:
    example: dict[str, Any] = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.meaning,
        "request_id": "019b2c5e-7a31-7c42-9f0e-2d4b8a6c1e90",
    }
    body = _problem_body(problem, route)
    if body is BadRequestBody:
        in_body = {"detail": "Must be an integer from 1 to 2147483647. Example: 100."}
        unknown = "This name is not allowed here. The allowed names are: `search`, `limit`, `cursor`."
        in_query = {"detail": unknown, "parameter": "page"}
        example["errors"] = [{**in_body, "pointer": "#/amount"}] if route.model("body") else [in_query]
    elif problem.slug in _OF_A_CLAIM:
        example["claim"] = _OF_A_CLAIM[problem.slug]
    elif body is schemas.TicketProblemBody:
        example["ticket"] = _TICKET_EXAMPLE
    elif body is schemas.NotStartedBody:
        example["starts_at"] = "2026-11-27T00:00:00Z"
    elif body is NotEligibleBody:
        reason = domain.Reason(domain.ReasonCode.ATTRIBUTE_REFUSED, "#/attributes/0")
        example["reasons"] = [asdict(reason_body(reason))]
    elif body is schemas.AmountBelowClaimedBody:
        example["claimed"] = 42
    elif body is RowsRefusedBody:
        example |= {"rejected_count": 1, "rejected": [{"row": 2, "code": "HKTA-2947", "reason": "exists"}]}
    elif body is schemas.QuotaExceededBody:
        example["violated-policies"] = ["user"]
    elif body is UnreadyBody:
        example["checks"] = {"redis": {"status": "down", "detail": "2 of 3 masters cannot be used"}}
    return example


def _headers(names: Any) -> dict[str, Any]:
    common = {"X-Request-ID": "the id of the request"}
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in {**common, **names}.items()}
