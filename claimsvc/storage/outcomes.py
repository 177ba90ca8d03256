"""Outcomes as they are kept under a key: JSON that a later version still reads."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from claimsvc import domain

# What a repetition is told is never kept itself.
_KINDS: Mapping[str, type[domain.Outcome]] = MappingProxyType(
    {name: kind for kind, name in domain.OUTCOME_NAMES.items() if kind not in (domain.Replayed, domain.KeyReused)}
)
_CODECS: Mapping[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


def encode(outcome: domain.Outcome) -> dict[str, Any]:
    """The outcome as JSON has it."""
    name = domain.OUTCOME_NAMES[type(outcome)]
    return {"kind": name, "value": _CODECS[name].dump_python(outcome, mode="json")}


def decode(stored: Mapping[str, Any]) -> domain.Outcome:
    """The outcome that was kept.

    Raises:
        KeyError: it is of a kind that this version does not know.
    """
    outcome: domain.Outcome = _CODECS[stored["kind"]].validate_python(stored["value"])
    return outcome
