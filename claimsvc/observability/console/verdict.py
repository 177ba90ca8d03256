"""A sentence about the state of the service, and what it is judged from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from claimsvc.domain import RowHolder
from claimsvc.observability.console.locks import LockInspection
from claimsvc.observability.console.picture import Picture
from claimsvc.observability.console.queues import QueueRow


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of the service.

    Args:
        kind: identifies the condition and its subject, independently of the figures.
        level: `quiet`, `good`, `warning` or `bad`.
        text: one sentence.
        evidence: the figures that support it; may be empty.
        advice: what to do; may be empty.
        is_cause: whether it must have been true for most of the last ten seconds before it is said.
        since: since when (seconds since 1970); None: since it was first said.
    """

    kind: str
    level: str
    text: str
    evidence: str = ""
    advice: str = ""
    is_cause: bool = False
    since: float | None = None


def _always(_: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Scene:
    """What a verdict is judged from.

    Args:
        picture: the merged figures.
        looked: the masters' state of a lock that the figures do not explain, if they were asked.
        holders: sessions that hold the rows of coupons in PostgreSQL, if it was asked.
        queues: those that are shown.
        is_settled: whether a cause, by its `Verdict.kind`, has been there for most of the last ten seconds.
    """

    picture: Picture
    looked: LockInspection | None = None
    holders: tuple[RowHolder, ...] = ()
    queues: Sequence[QueueRow] = ()
    is_settled: Callable[[str], bool] = field(default=_always)


Check = Callable[[Scene], Iterator[Verdict]]
