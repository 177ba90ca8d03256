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
from claimsvc.representations.mistakes import (
    MAX_MISTAKES,
    Mistake,
    Place,
    mistakes_of,
    pointer_of,
    shown_place,
    unknown_names,
)
from claimsvc.representations.strict_json import is_fit, shown

Model = TypeVar("Model", bound=BaseModel)


class Nothing(Request):
    """The query or body of a route that takes none."""


def body_refused(error: ValidationError, model: type[BaseModel]) -> RefusedError:
    """The refusal of a JSON document that does not match its model; `errors` has a JSON pointer for each error."""
    return _body_refused(mistakes_of(error, model))


def refuse_unknown_names(model: type[BaseModel], document: Mapping[str, Any]) -> None:
    """Refuse a body with many names before it is validated, because each unknown name would cost an error.

    Raises:
        RefusedError: `errors` names the first of the unknown names.
    """
    found = _unknown_names(model, document)
    if found:
        raise _body_refused(found)


def _body_refused(mistakes: Sequence[Mistake]) -> RefusedError:
    errors = [BodyError(each.message, _pointer(each)) for each in mistakes]
    return RefusedError(BAD_REQUEST, errors=list(dict.fromkeys(errors)))


def _unknown_names(model: type[BaseModel], values: Mapping[str, Any]) -> Sequence[Mistake]:
    """The first unknown names; none if there are so few names that pydantic may find them."""
    if len(values) <= MAX_MISTAKES:
        return ()
    return unknown_names(list(islice((name for name in values if name not in model.model_fields), MAX_MISTAKES)), model)


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
        error = ParameterError(f"{shown(repeated)} appears more than once; send it once.", _name((repeated,)))
        raise RefusedError(BAD_REQUEST, errors=[error])
    return _validate_parameters(model, values)


def _validate_parameters(model: type[Model], values: Mapping[str, str]) -> Model:
    found = _unknown_names(model, values)
    if not found:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            found = mistakes_of(error, model)
    errors: list[InputError] = [ParameterError(each.message, _name(each.place)) for each in found]
    raise RefusedError(BAD_REQUEST, errors=errors)


def _pointer(mistake: Mistake) -> str:
    """The JSON pointer to a mistake, as a URI fragment."""
    return "#" + quote(pointer_of(shown_place(mistake.place)), safe="/~")


def _name(place: Place) -> str:
    name = str(place[0]) if place else ""
    return name if is_fit(name) else ""
