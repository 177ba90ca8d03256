"""Validates bodies, paths and queries against models. Error messages never contain the input."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, ValidationError

from claimsvc.domain.problems import BAD_REQUEST
from claimsvc.http.server.problems import BodyError, InputError, ParameterError, RefusedError
from claimsvc.representations.fields import Request
from claimsvc.representations.strict_json import is_fit, shown

Model = TypeVar("Model", bound=BaseModel)

_MAX_ERRORS = 20


class Nothing(Request):
    """The query or body of a route that takes none."""


def body_refused(error: ValidationError, model: type[BaseModel], document: Any) -> RefusedError:
    """The refusal of a JSON document that does not match its model; `errors` has a JSON pointer for each error."""
    found = error.errors(include_input=False, include_url=False, include_context=False)[:_MAX_ERRORS]
    errors = list(dict.fromkeys(BodyError(_explain(each, model), _pointer(each, document)) for each in found))
    return RefusedError(BAD_REQUEST, errors=errors)


def refuse_unknown_names(model: type[BaseModel], document: Mapping[str, Any]) -> None:
    """Refuse a body with many names before it is validated, because each unknown name would cost an error.

    Raises:
        RefusedError: `errors` names the first of the unknown names.
    """
    found = _unknown_names(model, document)
    if found:
        errors = [BodyError(_explain(each, model), _pointer(each, document)) for each in found]
        raise RefusedError(BAD_REQUEST, errors=list(dict.fromkeys(errors)))


def _unknown_names(model: type[BaseModel], values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The first unknown names, as pydantic describes them; none if there are so few names that pydantic may do it."""
    if len(values) <= _MAX_ERRORS:
        return ()
    unknown = (name for name in values if name not in model.model_fields)
    return [{"type": "extra_forbidden", "loc": (name,)} for name in islice(unknown, _MAX_ERRORS)]


def validate_path(model: type[Model], request: web.Request) -> Model:
    """Validate the variable parts of the path.

    Raises:
        RefusedError: a part does not match the model; `errors` names it.
    """
    return _validate_parameters(model, request.match_info)


def validate_query(model: type[Model], request: web.Request) -> Model:
    """Validate the query.

    Raises:
        RefusedError: a parameter does not match the model, or appears more than once; `errors` names it.
    """
    query = request.rel_url.query
    values = dict(query)
    if len(values) != len(query):
        repeated = next(name for name in values if len(query.getall(name)) > 1)
        error = ParameterError(f"{shown(repeated)} appears more than once.", _name((repeated,)))
        raise RefusedError(BAD_REQUEST, errors=[error])
    return _validate_parameters(model, values)


def _validate_parameters(model: type[Model], values: Mapping[str, str]) -> Model:
    found = _unknown_names(model, values)
    if not found:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            found = error.errors(include_input=False, include_url=False, include_context=False)[:_MAX_ERRORS]
    errors: list[InputError] = [ParameterError(_explain(each, model), _name(each["loc"])) for each in found]
    raise RefusedError(BAD_REQUEST, errors=errors)


def _pointer(error: Mapping[str, Any], document: Any) -> str:
    """The JSON pointer to an error's place, without the names of unions' members that pydantic adds."""
    parts = []
    for part in error["loc"]:
        if isinstance(document, dict) and (
            part in document or (error["type"] == "missing" and part == error["loc"][-1])
        ):
            parts.append(str(part))
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int):
            parts.append(str(part))
            document = document[part]
    if not all(map(is_fit, parts)):
        return "#"
    return "#" + "".join("/" + quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in parts)


def _name(location: Sequence[int | str]) -> str:
    name = str(location[0]) if location else ""
    return name if is_fit(name) else ""


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    """The message of an error of pydantic, with the description of its field from the OpenAPI document."""
    if error["type"] == "extra_forbidden" and len(error["loc"]) > 1:
        return "This name is not allowed here."
    if error["type"] == "extra_forbidden" and not model.model_fields:
        return "Unknown name; this operation takes none."
    if error["type"] == "extra_forbidden":
        return f"Unknown name; the allowed names are: {', '.join(model.model_fields)}."
    field = model.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    rule = f"; it must be {field.description}" if field is not None and field.description else ""
    if error["type"] == "missing":
        return f"Required{rule}."
    # The rule is easier to read than the pattern in pydantic's message.
    message = (
        "Invalid format"
        if error["type"] == "string_pattern_mismatch"
        else str(error["msg"]).removeprefix("Value error, ")
    )
    return f"{message}{rule}."
