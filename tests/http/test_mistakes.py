"""A wrong value anywhere in a request has one error: at its place, with the rule in words, and an example."""

import re
from collections.abc import Iterator
from typing import Any, get_args, get_origin
from urllib.parse import urlencode

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from yarl import URL

from claimsvc.http.framework.routing import Route
from claimsvc.http.routes import ROUTES
from claimsvc.representations.benefits import AmountOff, OtherBenefit, PercentOff
from claimsvc.representations.fields import Request
from tests.http.asking import create
from tests.http.memory_services import Service
from tests.http.test_nothing_ignored import ask, path_of
from tests.support.admin import ADMIN

WRONG: list[Any] = [
    *(None, True, 5, -1, 0, 1.5, 1e300, 2**60, "", " ", "5", "\x00", "a b", "2026-12-01", "..", "x" * 9000),
    *([], [5], [[]], {}, {"nothing": 1}, {"a b": 1}, {"a": [1]}, {"a" * 65: 1}),
]
# What pydantic or Python would say, and what is no rule.
NOT_WORDS = re.compile(
    r"[Ii]nput|should|String|match pattern|\^|\[A-|\\|Extra|Field|Value error|[Nn]ot of the|[Ii]nvalid|None|True|dict"
)


def values_of(model: type[Request]) -> dict[str, Any]:
    """A valid body in which every field has its example."""
    found = {
        name: field.examples[0]
        for name, field in TypeAdapter(model).json_schema()["properties"].items()
        for field in [Example(field)]
        if field.examples
    }
    return {**found, **dict(model.EXAMPLE)}


class Example:
    """The examples of a field, wherever its schema has them."""

    def __init__(self, schema: dict[str, Any]) -> None:
        inner = [schema, *schema.get("anyOf", [])]
        self.examples = next((each["examples"] for each in inner if each.get("examples")), None)


def nested(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a value."""
    yield place
    if isinstance(value, dict | list):
        parts: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for part, inner in parts:
            yield from nested(inner, (*place, part))


def replaced(document: Any, place: tuple[str | int, ...], value: Any) -> Any:
    if not place:
        return value
    head, *rest = place
    copy: Any = dict(document) if isinstance(document, dict) else list(document)
    copy[head] = replaced(document[head], tuple(rest), value)
    return copy


def value_at(document: Any, place: tuple[str | int, ...]) -> Any:
    for part in place:
        document = document[part]
    return document


def documents_of(model: type[Request]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Each document that is wrong in one place, with that place."""
    examples = values_of(model)
    for name, value in examples.items():
        base = {**model.EXAMPLE, name: value}
        try:
            model.model_validate(base)
        except ValidationError:
            base = {key: each for key, each in base.items() if key in {name, "user_id"}}  # one excludes another
        for place in nested(value, (name,)):
            for wrong in WRONG:
                yield place, replaced(base, place, wrong)
    if "benefit" in examples:
        for kind in (PercentOff, AmountOff, OtherBenefit):
            benefit = values_of(kind)
            for name in benefit:
                for wrong in WRONG:
                    yield ("benefit", name), {**model.EXAMPLE, "benefit": {**benefit, name: wrong}}
    if "rules" in examples:
        full = {"name": "age", "source": "token", "one_of": [1], "none_of": ["KR"], "at_least": 1, "at_most": 2}
        rules = {"attributes": [full], "holds": ["a"], "holds_not": ["b"]}
        for place in nested(rules, ()):
            for wrong in WRONG:
                yield ("rules", *place), {**model.EXAMPLE, "rules": replaced(rules, place, wrong)}


def says_the_rule(message: str) -> bool:
    rule = re.fullmatch(r"(Must be|The name must be|Required\. Must be) .{4,}\.", message, re.DOTALL)
    return bool(rule) or " must " in message or message.startswith("This name is not allowed here")


BODIES = [route for route in ROUTES if route.model("body") is not None]


@pytest.mark.parametrize("route", BODIES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_wrong_value_in_a_body_has_one_error_at_its_place(service: Service, route: Route) -> None:
    model = route.model("body")
    assert model is not None
    seen = set()
    for place, document in documents_of(model):
        try:
            model.model_validate(document)
        except ValidationError:
            pass
        else:
            continue
        status, problem = await ask(service, route, json=document)
        assert (status, problem["type"]) == (400, "/problems/bad-request"), document
        errors = problem["errors"]
        # An object can be wrong in several places of its own: a name that is unknown, and one that is missing.
        assert len(errors) == 1 or isinstance(value_at(document, place), dict), (document, errors)
        assert len({error["pointer"] for error in errors}) == len(errors), (document, errors)
        for error in errors:
            pointer = "#/" + "/".join(str(part) for part in place)
            # A rule about several fields is told at what has them.
            is_of_several = "`" in error["detail"] and pointer.startswith(error["pointer"])
            assert error["pointer"].startswith(pointer) or is_of_several or error["pointer"] == "#", (document, error)
            assert says_the_rule(error["detail"]), (document, error)
            assert not NOT_WORDS.search(error["detail"]), (document, error)
        seen.add(place[0])
    assert seen == set(values_of(model)), "every field was wrong once"


@pytest.mark.parametrize("place", ["path", "query"])
async def test_a_wrong_parameter_has_one_error_with_its_name(service: Service, place: str) -> None:
    for route in ROUTES:
        model = route.model(place)
        if model is None:
            continue
        for name in model.model_fields:
            wrong = [value for value in ("\x00", "a b!", "é", "x" * 300) if is_wrong(model, name, value)]
            assert wrong, name
            for value in wrong:
                if place == "query":
                    path = f"{path_of(route)}?{urlencode({name: value})}"
                else:
                    path = route.path.replace("{" + name + "}", urlencode({"": value})[1:].replace("+", "%20"))
                url = URL(service.url + path, encoded=True)
                async with service.client.request(route.method, url, headers=ADMIN) as response:
                    status, problem = response.status, await response.json(content_type=None)
                assert (status, problem["type"]) == (400, "/problems/bad-request"), path
                [error] = problem["errors"]
                assert error["parameter"] == name
                assert says_the_rule(error["detail"]), error
                assert not NOT_WORDS.search(error["detail"]), error


def is_wrong(model: type[BaseModel], name: str, value: str) -> bool:
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return any(each["loc"] == (name,) for each in error.errors())
    return False


def models(kind: Any) -> Iterator[type[Request]]:
    """The models in a type."""
    if isinstance(kind, type) and issubclass(kind, Request):
        yield kind
        for field in kind.model_fields.values():
            yield from models(field.annotation)
    elif get_origin(kind) is not None:
        for each in get_args(kind):
            yield from models(each)


def test_every_field_of_every_request_has_a_rule_and_an_example_if_its_form_is_not_obvious() -> None:
    from claimsvc.representations.mistakes import explain

    for route in ROUTES:
        for part in ("path", "query", "body"):
            for model in models(route.model(part)):
                for name in model.model_fields:
                    [mistake] = explain([("", (name,), "")], model)
                    assert says_the_rule(mistake.message), f"{model.__name__}.{name}"
                    obvious = "true or false" in mistake.message or "`true`" in mistake.message
                    assert obvious or "Example: " in mistake.message or "such as" in mistake.message, mistake


@pytest.mark.parametrize(
    ("given", "pointer", "says"),
    [
        (
            {"benefit": {"percent_off": 100.5}},
            "#/benefit/percent_off",
            "Must be a number greater than 0 and at most 100. Example: 15.",
        ),
        (
            {"starts_at": "2026-12-01T00:00:00"},
            "#/starts_at",
            "Must be an RFC 3339 date-time with an offset, such as 2027-01-01T00:00:00Z.",
        ),
        ({"benefit": {"percent_of": 15}}, "#/benefit/percent_of", "Did you mean `percent_off`?"),
        ({"benefit": {"percent_off": 15, "text": "a"}}, "#/benefit/text", "The allowed names are: `percent_off`."),
        ({"benefit": {"amount_off": 15}}, "#/benefit/currency", "Required. Must be the three capital letters"),
        ({"benefit": 15}, "#/benefit", "Must be an object with `percent_off`, or with"),
        ({"benefit": {}}, "#/benefit", 'Example: {"percent_off":15}.'),
        ({"rules": {"hold_not": ["a"]}}, "#/rules/hold_not", "Did you mean `holds_not`?"),
        ({"rules": {"attributes": [{"nam": "a"}]}}, "#/rules/attributes/0/nam", "Did you mean `name`?"),
        ({"start_at": "2027-01-01T00:00:00Z"}, "#/start_at", "Did you mean `starts_at`?"),
        ({"perUserLimit": 2}, "#/perUserLimit", "Did you mean `per_user_limit`?"),
        ({"metadata": {"a": {"constrained-str": 1}}}, "#/metadata/a", "Must be a string of at most"),
        ({"metadata": {"[key]": [1]}}, "#/metadata/[key]", "Must be a string of at most"),
    ],
)
async def test_a_mistake_is_told_where_it_was_made_and_nowhere_else(
    service: Service, given: Any, pointer: str, says: str
) -> None:
    status, problem, _ = await create(service, {"name": "a", "amount": 1, **given})
    assert status == 400
    [error] = problem["errors"]
    assert URL(error["pointer"]).fragment == pointer[1:]
    assert says in error["detail"]


async def test_a_misspelt_name_is_not_also_a_missing_one(service: Service) -> None:
    status, problem, _ = await create(service, {"name": "a", "ammount": 1})
    assert (status, [error["pointer"] for error in problem["errors"]]) == (400, ["#/ammount"])
    status, problem, _ = await create(service, {"name": "a", "wholly_different": 1})
    assert (status, [error["pointer"] for error in problem["errors"]]) == (400, ["#/amount", "#/wholly_different"])


async def test_two_mistakes_are_two_errors(service: Service) -> None:
    status, problem, _ = await create(service, {"name": "a  b", "amount": 0, "benefit": {"percent_off": 0}})
    assert status == 400
    assert [error["pointer"] for error in problem["errors"]] == ["#/name", "#/amount", "#/benefit/percent_off"]
