"""What is wrong with an input, where, and what is right, in words: the same over HTTP and on the command line.

pydantic describes every alternative of a union and every pattern. Here each place of the input that is wrong has one
mistake, whose message states the rule of that place: the description and an example of its field. So a field's
description completes the sentence "it must be ...". Messages never contain values of the input.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import orjson
from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from claimsvc.representations.strict_json import is_fit

MAX_MISTAKES = 20
_BROKEN_RULE = "broken_rule"
_KEY = "[key]"
_UNKNOWN = "extra_forbidden"
_MISSING = "missing"

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """One place of an input that is wrong.

    Args:
        place: the names and indexes that lead to it; empty for the whole input.
        message: what is right there, as a sentence.
    """

    place: Place
    message: str


def broken_rule(message: str) -> PydanticCustomError:
    """The error of a validator whose rule is about more than one field, so that no field's description states it.

    Args:
        message: the rule, as a sentence without braces.
    """
    return PydanticCustomError(_BROKEN_RULE, message)


def mistakes_of(error: ValidationError, model: type[BaseModel]) -> list[Mistake]:
    """Return the first mistakes of an input that does not match the model, one for each place.

    Args:
        error: what pydantic found.
        model: what the input must be.
    """
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return explain([(str(each["type"]), each["loc"], str(each["msg"])) for each in found], model)


def unknown_names(names: Sequence[str], model: type[BaseModel]) -> list[Mistake]:
    """Return the mistakes of names that the model does not have, at the top of an input."""
    return explain([(_UNKNOWN, (name,), "") for name in names], model)


def rule_of(model: type[BaseModel], field: str) -> str:
    """What a field must be, as a sentence."""
    return _spot_of(model, (field,)).sentence("")


def explain(errors: Sequence[tuple[str, Place, str]], model: type[BaseModel]) -> list[Mistake]:
    """Explain the first errors (type, location and message of pydantic), with one mistake for each place."""
    first: dict[Place, tuple[str, _Spot, str]] = {}
    for kind, location, message in errors:
        spot = _spot_of(model, location)
        first.setdefault(spot.place, (kind, spot, message))
        if len(first) == MAX_MISTAKES:
            break
    # A misspelt name is one mistake, and not also the lack of the right name.
    meant = {
        (*place[:-1], near) for place, (kind, spot, _) in first.items() if kind == _UNKNOWN and (near := spot.nearest())
    }
    return [
        Mistake(place, message if kind == _BROKEN_RULE else spot.sentence(kind))
        for place, (kind, spot, message) in first.items()
        if kind != _MISSING or place not in meant
    ]


@dataclass(frozen=True, slots=True)
class _Spot:
    """A place, and what is known about it: its rule, an example, and the names that are allowed where it is unknown."""

    place: Place
    rule: str = ""
    example: Any = None
    is_key: bool = False
    allowed: tuple[str, ...] = ()

    def nearest(self) -> str:
        """The allowed name that is nearest to an unknown one; empty if none is near."""
        return nearest(str(self.place[-1]), self.allowed)

    def sentence(self, kind: str) -> str:
        if kind == _UNKNOWN:
            if not self.allowed:
                return "This name is not allowed here: this operation takes none."
            near = self.nearest()
            meant = f" Did you mean `{near}`?" if near else ""
            names = ", ".join(f"`{name}`" for name in self.allowed)
            return f"This name is not allowed here.{meant} The allowed names are: {names}."
        start = "Required. Must be" if kind == _MISSING else "The name must be" if self.is_key else "Must be"
        if self.example is None or "such as" in self.rule:
            return f"{start} {self.rule}."
        return f"{start} {self.rule}. Example: {_shown(self.example)}."


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed name that was probably meant by an unknown one; empty if none is near."""
    by_letters = {_letters(each): each for each in allowed}
    found = get_close_matches(_letters(name), by_letters, n=1) if is_fit(name) else []
    return by_letters[found[0]] if found else ""


def _letters(name: str) -> str:
    return name.replace("-", "").replace("_", "").lower()


def _shown(example: Any) -> str:
    return example if isinstance(example, str) else orjson.dumps(example).decode()


def _spot_of(model: type[BaseModel], location: Place) -> _Spot:
    """Follow a location of pydantic's through the types, leaving out the names of unions' members that it has."""
    place: list[str | int] = []
    kind: Any = model
    rule, example = "", None
    for index, part in enumerate(location):
        kind, member_count = _unwrapped(kind)
        if member_count > 1:
            kind = _member(kind, part)
            continue
        origin, arguments = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            place.append(part)
            field = kind.model_fields.get(str(part))
            if field is None:
                return _Spot(tuple(place), allowed=tuple(kind.model_fields))
            rule, example = _described(Annotated[field.annotation, field])
            kind = field.annotation
        elif origin is dict:
            place.append(part)
            is_key = location[index + 1 :] == (_KEY,)
            kind = arguments[0] if is_key else arguments[1]
            rule, example = _described(kind)
            if is_key:
                return _Spot(tuple(place), rule, example, is_key=True)
        elif origin is list:
            place.append(part)
            kind = arguments[0]
            rule, example = _described(kind)
    return _Spot(tuple(place), rule, example)


def _layers(kind: Any) -> Iterator[tuple[Any, Sequence[Any]]]:
    """A type and what annotates it, from the outside in, through `Annotated` and `| None`."""
    while True:
        notes: Sequence[Any] = ()
        if get_origin(kind) is Annotated:
            kind, *notes = get_args(kind)
        yield kind, notes
        if get_origin(kind) in (Union, UnionType):
            members = [member for member in get_args(kind) if member is not NoneType]
            if len(members) == 1 != len(get_args(kind)):
                kind = members[0]
                continue
        if get_origin(kind) is not Annotated:
            return


def _unwrapped(kind: Any) -> tuple[Any, int]:
    """A type without its annotations and `| None`, and how many types it is a union of."""
    *_, (inner, _) = _layers(kind)
    if get_origin(inner) in (Union, UnionType):
        return inner, len([member for member in get_args(inner) if member is not NoneType])
    return inner, 1


def _described(kind: Any) -> tuple[str, Any]:
    """The outermost description of a type, and the outermost example."""
    fields = [note for _, notes in _layers(kind) for note in notes if isinstance(note, FieldInfo)]
    description = next((field.description for field in fields if field.description), "")
    return description, next((field.examples[0] for field in fields if field.examples), None)


def _member(union: Any, label: str | int) -> Any:
    """The member of a union that pydantic calls so: the model of that tag. Members without a name have no places."""
    for member in get_args(union):
        if get_origin(member) is Annotated and any(
            isinstance(note, Tag) and note.tag == label for note in get_args(member)
        ):
            return get_args(member)[0]
    return None


def pointer_of(place: Place) -> str:
    """The place as an RFC 6901 JSON pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)


def shown_place(place: Place) -> Place:
    """The place, as far as its names may be repeated in a message."""
    return tuple(takewhile(lambda part: is_fit(str(part)), place))
