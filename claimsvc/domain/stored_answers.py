"""The JSON of answers stored under idempotency keys. Later versions must still be able to read it.

Decisions of another instance come in the same form, and among them answers that were stored before.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from claimsvc.domain import Outcome, Replayed
from claimsvc.domain.outcomes import name_of, rows

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# Of all rows: older versions stored answers that this one does not store.
_KINDS: Mapping[str, type[Any]] = {row.name: kind for kind, row in rows()}
_REPLAYED = next(row.name for kind, row in rows() if kind is Replayed)


@cache
def _codec(name: str) -> "TypeAdapter[Any]":
    # Built on first use: importing pydantic and building all of them takes 0.1 s.
    from pydantic import TypeAdapter

    return TypeAdapter(_KINDS[name])


def encode(answer: Outcome) -> dict[str, Any]:
    """Return an answer as JSON."""
    name = name_of(answer)
    if isinstance(answer, Replayed):
        return {"kind": name, "value": {"answer": encode(answer.answer), "request_id": answer.request_id}}
    return {"kind": name, "value": _codec(name).dump_python(answer, mode="json")}


def decode(stored: Mapping[str, Any]) -> Outcome:
    """Return a stored answer.

    Raises:
        KeyError: this version does not know its kind.
    """
    value = stored["value"]
    if stored["kind"] == _REPLAYED:
        return Replayed(decode(value["answer"]), value["request_id"])
    answer: Outcome = _codec(stored["kind"]).validate_python(value)
    return answer
