"""The table of outcomes: the name of each, and how every entry point answers it.

A use case returns an outcome, or raises a failure (`claimsvc.errors`). Each class of outcomes is declared together with
its row by `@outcome` or, when the request is refused, by `@refusal`. HTTP, RPC, commands, metrics, stored answers and
the documentation of the API read these rows, so a new outcome is one declaration.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from claimsvc.domain.problems import INTERNAL_ERROR, LOCK_BUSY, UNAVAILABLE, Problem, RpcCode, problem_of_failure


class Outcome:
    """The result of a use case."""

    __slots__ = ()


class ClaimOutcome(Outcome):
    """The result of claiming a coupon. PostgreSQL decides it; if it cannot, the result is a failure."""

    __slots__ = ()


class Refusal(Outcome):
    """An outcome that is answered with a problem."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Row:
    """The row of one class of outcomes.

    Args:
        name: the label in metrics, the word in logs, and the kind of a stored answer. Never rename or reuse one:
            answers stored by older versions are read by it.
        problem: the problem it is answered with; None for a success.
        is_stored: whether it is stored as the answer to an idempotency key; a function if its values differ in that. An
            answer that advises to retry is not stored: under the same key, the retry would get it again.
        uses_up: whether it used something up of which there is a limited stock, so that nobody can get it any number
            of times.
        seen_as: the name under which operators see it, if they need not distinguish it from another outcome.
        as_reason: its text as a reason of a user's ineligibility; empty if it cannot be one.
    """

    name: str
    problem: Problem | None
    is_stored: "IsStored"
    seen_as: str
    as_reason: str = ""
    uses_up: bool = False


IsStored = bool | Callable[[Any], bool]

_rows: dict[type, Row] = {}
_problems: dict[type[Refusal], Problem] = {}
_Kind = TypeVar("_Kind", bound=type)


def outcome(
    name: str, *, is_stored: IsStored = True, seen_as: str | None = None, uses_up: bool = False
) -> Callable[[_Kind], _Kind]:
    """Declare a success; see `Row`."""

    def declare(kind: _Kind) -> _Kind:
        _rows[kind] = Row(name, None, is_stored, seen_as or name, uses_up=uses_up)
        return kind

    return declare


def refusal(
    slug: str,
    status: int,
    title: str,
    meaning: str,
    advice: str,
    *,
    rpc_code: RpcCode | None = None,
    stored_as: str | None = None,
    is_stored: bool = True,
    seen_as: str | None = None,
    as_reason: str = "",
) -> Callable[[_Kind], _Kind]:
    """Declare a refusal; see `Problem` and `Row`.

    Args:
        stored_as: its name in the table, if different from the slug.
    """

    def declare(kind: _Kind) -> _Kind:
        problem = _problems[kind] = Problem(slug, status, title, meaning, advice, rpc_code)
        _rows[kind] = Row(stored_as or slug, problem, is_stored, seen_as or slug, as_reason)
        return kind

    return declare


def rows(base: type = object) -> Iterator[tuple[type, Row]]:
    """Return the rows of all subclasses of `base`, in the order of their declaration."""
    return ((kind, row) for kind, row in _rows.items() if issubclass(kind, base))


def is_stored(answer: Outcome, *, keeps_all: bool = True) -> bool:
    """Return whether an answer is stored under its request's idempotency key.

    Args:
        answer: the answer.
        keeps_all: false if it is stored only if it used something up; see `IdempotencyKey`.
    """
    row = _rows[type(answer)]
    stored = row.is_stored(answer) if callable(row.is_stored) else row.is_stored
    return stored and (keeps_all or row.uses_up)


def is_stored_for_nothing(answer: Outcome) -> bool:
    """Return whether an answer is stored under its request's idempotency key although it used nothing up."""
    return is_stored(answer) and not _rows[type(answer)].uses_up


def refusals() -> Iterator[tuple[type[Refusal], Problem]]:
    """Return every refusal and its problem."""
    return iter(_problems.items())


def refusals_of_claiming() -> tuple[type[Refusal], ...]:
    """Return every refusal that a claim may result in."""
    return tuple(kind for kind in _problems if issubclass(kind, ClaimOutcome))


def problem_of(refused: Outcome) -> Problem:
    """Return the problem of an outcome, which must be a refusal.

    Raises:
        KeyError: it is not a refusal.
    """
    return _problems[type(refused)]  # type: ignore[index] # the keys are refusals


def problems_of(*kinds: type[Refusal]) -> tuple[Problem, ...]:
    """Return the problems of these classes of refusals."""
    return tuple(_problems[kind] for kind in kinds)


_CANCELLED = "cancelled"


def name_of(result: Outcome | BaseException) -> str:
    """Return the name of an outcome, a failure or a cancellation: the label in metrics and the word in logs."""
    if isinstance(result, BaseException):
        # Imported here, because help must not wait for asyncio, and only failures need it.
        from asyncio import CancelledError

        return _CANCELLED if isinstance(result, CancelledError) else problem_of_failure(result).slug
    return _rows[type(result)].name


def claim_result_names() -> tuple[str, ...]:
    """Return every name that `name_of` can return for the result of a claim."""
    outcomes = (row.name for _, row in rows(ClaimOutcome))
    return (*outcomes, LOCK_BUSY.slug, UNAVAILABLE.slug, _CANCELLED, INTERNAL_ERROR.slug)
