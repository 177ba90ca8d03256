"""Summarizes the picture in one sentence, with its evidence and advice: the first condition that applies.

The order: not ready and why; failing, by the objective's own figures; slow against the objective, and whose time it is;
contended; quiet only if claims could be made. A sentence claims only what its figures show. It says so when a condition
has ended. Where the figures show no single cause, it reports what is known.
"""

from collections import Counter, deque
from collections.abc import Iterator, Sequence

from claimsvc.domain import RowHolder
from claimsvc.observability.console.failures import (
    broken,
    failing,
    gave_up,
    gave_up_before,
    long_held,
    row_held,
    stranger,
    unavailable,
    violated,
)
from claimsvc.observability.console.locks import LockInspection
from claimsvc.observability.console.outages import master_down, not_ready, quiet, silent, some_not_ready
from claimsvc.observability.console.picture import Picture
from claimsvc.observability.console.queues import QueueRow
from claimsvc.observability.console.slowness import busy, contended, hot, queueing, slow
from claimsvc.observability.console.standstill import given_up, queue_stalled
from claimsvc.observability.console.verdict import Check, Scene, Verdict

# Of the last ten seconds, in so many a cause must have been there before it is said, and so few end it.
_SECONDS = 10
_MOST_SECONDS = 6
_FEW_SECONDS = 3

_CHECKS: tuple[Check, ...] = (
    not_ready,
    violated,
    failing,
    row_held,
    broken,
    stranger,
    gave_up,
    unavailable,
    queue_stalled,
    some_not_ready,
    long_held,
    silent,
    slow,
    queueing,
    master_down,
    given_up,
    gave_up_before,
    contended,
    hot,
    busy,
)


def judge(
    picture: Picture,
    looked: LockInspection | None = None,
    holders: tuple[RowHolder, ...] = (),
    queues: Sequence[QueueRow] = (),
) -> Verdict:
    """Return the first verdict that applies, as if each cause had lasted long enough.

    Args:
        picture: the merged figures.
        looked: the masters' state of the lock that `suspect` named, if they were asked.
        holders: sessions that hold the rows of coupons in PostgreSQL, if it was asked.
        queues: those that are shown.
    """
    return _first(Scene(picture, looked, holders, queues))


def _first(scene: Scene) -> Verdict:
    said = (verdict for verdict in _all(scene) if not verdict.is_cause or scene.is_settled(verdict.kind))
    return next(said, None) or quiet(scene)


def _all(scene: Scene) -> Iterator[Verdict]:
    return (verdict for check in _CHECKS for verdict in check(scene))


class Diagnosis:
    """Judges pictures one after another, so that a cause is said only if it lasts, and does not come and go."""

    def __init__(self) -> None:
        self._seconds: deque[frozenset[str]] = deque(maxlen=_SECONDS)
        self._settled: set[str] = set()

    def note(self, scene: Scene) -> None:
        """Note what is true of one second. Call it once a second.

        Args:
            scene: with the figures of this second alone.
        """
        self._seconds.append(frozenset(verdict.kind for verdict in _all(scene) if verdict.is_cause))
        seen = Counter(kind for kinds in self._seconds for kind in kinds)
        stays = {kind for kind in self._settled if seen[kind] > _FEW_SECONDS}
        self._settled = stays | {kind for kind, seconds in seen.items() if seconds >= _MOST_SECONDS}

    def judge(
        self,
        picture: Picture,
        looked: LockInspection | None,
        holders: tuple[RowHolder, ...],
        queues: Sequence[QueueRow] = (),
    ) -> Verdict:
        """Return the first verdict that applies; see `judge`."""
        return _first(Scene(picture, looked, holders, queues, self._settled.__contains__))
