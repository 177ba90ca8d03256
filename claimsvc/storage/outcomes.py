"""Outcomes as they are kept under a key: JSON that a later version still reads."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from claimsvc import domain

# The names are stored: none may ever mean anything else.
_KINDS: Mapping[str, type[domain.Outcome]] = MappingProxyType(
    {
        "claimed": domain.Claimed,
        "already-claimed": domain.AlreadyClaimed,
        "hold-continued": domain.HoldContinued,
        "sold-out": domain.SoldOut,
        "unknown-coupon": domain.UnknownCoupon,
        "not-started": domain.NotStarted,
        "ended": domain.Ended,
        "paused": domain.Paused,
        "not-eligible": domain.NotEligible,
    }
)
_NAMES = {kind: name for name, kind in _KINDS.items()}
_CODECS: Mapping[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


def encode(outcome: domain.Outcome) -> dict[str, Any]:
    """The outcome as JSON has it."""
    name = _NAMES[type(outcome)]
    return {"kind": name, "value": _CODECS[name].dump_python(outcome, mode="json")}


def decode(stored: Mapping[str, Any]) -> domain.Outcome:
    """The outcome that was kept.

    Raises:
        KeyError: it is of a kind that this version does not know.
    """
    outcome: domain.Outcome = _CODECS[stored["kind"]].validate_python(stored["value"])
    return outcome
