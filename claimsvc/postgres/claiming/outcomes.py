"""Answers as they are kept under a key: JSON that a later version still reads."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from claimsvc.domain import Outcome
from claimsvc.domain.outcomes import name_of, rows

_KINDS: Mapping[str, type[Any]] = {row.name: kind for kind, row in rows() if row.is_stored}


@cache
def _codec(name: str) -> TypeAdapter[Any]:
    # Built when first used: all of them together take 50 ms of every start.
    return TypeAdapter(_KINDS[name])


def encode(answer: Outcome) -> dict[str, Any]:
    """The answer as JSON has it."""
    name = name_of(answer)
    return {"kind": name, "value": _codec(name).dump_python(answer, mode="json")}


def decode(stored: Mapping[str, Any]) -> Outcome:
    """The answer that was kept.

    Raises:
        KeyError: it is of a kind that this version does not know.
    """
    answer: Outcome = _codec(stored["kind"]).validate_python(stored["value"])
    return answer
