"""Answers as they are kept under a key: JSON that a later version still reads."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from claimsvc.domain import ANSWER_NAMES, StoredAnswer

_CODECS: Mapping[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for kind, name in ANSWER_NAMES.items()}


def encode(answer: StoredAnswer) -> dict[str, Any]:
    """The answer as JSON has it."""
    name = ANSWER_NAMES[type(answer)]
    return {"kind": name, "value": _CODECS[name].dump_python(answer, mode="json")}


def decode(stored: Mapping[str, Any]) -> StoredAnswer:
    """The answer that was kept.

    Raises:
        KeyError: it is of a kind that this version does not know.
    """
    answer: StoredAnswer = _CODECS[stored["kind"]].validate_python(stored["value"])
    return answer
