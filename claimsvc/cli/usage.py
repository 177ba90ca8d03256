"""What is wrong with the arguments of a command: the option, the rule in words, and an example, as over HTTP.

The imports are inside the functions, because help must not wait for pydantic.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_origin

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

# More than the API takes as a body.
_MOST_BYTES = 65_536


def must_be(rule: str, option: str, example: str = "") -> typer.BadParameter:
    """The error of an argument that breaks a rule.

    Args:
        rule: completes "it must be".
        option: the option, or the name of the argument.
        example: what is right, if the rule does not say.
    """
    return typer.BadParameter(f"must be {rule}" + (f". Example: {example}" if example else ""), param_hint=option)


def refused_options(error: "ValidationError", model: "type[BaseModel]") -> typer.BadParameter:
    """The error of options that do not match a model; each option has the name of its field.

    Args:
        error: what pydantic found.
        model: what the options must be.
    """
    from claimsvc.representations.mistakes import mistakes_of, pointer_of, shown_place

    first = mistakes_of(error, model)[0]
    inside = shown_place(first.place[1:])
    where = f"at {pointer_of(inside)}: " if inside else ""
    return typer.BadParameter(where + _clause(first.message), param_hint=option_of(str(first.place[0])))


def json_of(text: str, field: str, model: "type[BaseModel]") -> dict[str, Any]:
    """Decode an option that is a JSON object, as strictly as the API.

    Args:
        text: the option's value.
        field: the field of the model that it is for; the option has its name.
        model: what the options must be.

    Raises:
        typer.BadParameter: it is too long, not UTF-8, or not a JSON object.
    """
    from claimsvc.representations.mistakes import rule_of
    from claimsvc.representations.strict_json import InvalidJsonError, decode_object

    raw = text.encode("utf-8", "surrogateescape")
    option, rule = option_of(field), _clause(rule_of(model, field))
    if len(raw) > _MOST_BYTES:
        raise typer.BadParameter(f"is longer than {_MOST_BYTES} bytes; {rule}", param_hint=option)
    try:
        return decode_object(raw, "it")
    except InvalidJsonError as error:
        raise typer.BadParameter(f"{error.detail.rstrip('.')}; {rule}", param_hint=option) from None


def in_words(error: typer.BadParameter) -> typer.BadParameter:
    """Say in words what typer says in pydantic's: which number, or which of several words, an argument must be."""
    descriptor = getattr(error.param, "type_descriptor", None)
    if error.__cause__ is None or descriptor is None:
        return error
    kind, info = descriptor.annotation, descriptor.parameter_info
    if get_origin(kind) is list:
        [kind] = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        error.message = f"must be one of {', '.join(str(each.value) for each in kind)}"
    elif kind in (int, float):
        bounds = "" if info.min is None else f" from {info.min}" if info.max is not None else f" of at least {info.min}"
        error.message = f"must be a {'whole ' * (kind is int)}number{bounds}"
        error.message += "" if info.max is None else f" to {info.max}"
    else:
        error.message = error.message.removeprefix("Value error, ")
    return error


def option_of(field: str) -> str:
    """The option with the name of a field."""
    return "--" + field.replace("_", "-")


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")
