"""Sentences about queues: one that stands still, and claims that the service has given up."""

from collections.abc import Iterator

from claimsvc.observability.console.formatting import listed, times
from claimsvc.observability.console.queues import STALLED
from claimsvc.observability.console.verdict import Scene, Verdict

_MOST_NAMED = 3


def queue_stalled(scene: Scene) -> Iterator[Verdict]:
    """Claims wait in a queue, nobody stopped it, and none is started. The longest such queue is named."""
    stalled = [row for row in scene.queues if row.state == STALLED]
    if not stalled:
        return
    row = stalled[0]
    others = f" Of the queues shown, {len(stalled)} stand still." if len(stalled) > 1 else ""
    yield Verdict(
        f"queue-stalled {row.name}",
        "bad",
        f"The queue of {row.name} stands still: {times(row.waiting, 'claim')} wait, and none is started.",
        f"Nobody has paused it, and its coupon has started.{others}",
        "Run `claimsvc doctor` where an instance runs: it says for how long, and what to do.",
        since=max((each for each in (row.dispatched_at, row.oldest_joined_at) if each is not None), default=None),
    )


def given_up(scene: Scene) -> Iterator[Verdict]:
    """There are dead letters."""
    rows = [row for row in scene.queues if row.dead]
    if rows:
        names = [row.name for row in rows[:_MOST_NAMED]]
        yield Verdict(
            "given-up",
            "warning",
            f"The service has given up {times(sum(row.dead for row in rows), 'claim')} that waited for {listed(names)}"
            f"{' and others' if len(rows) > _MOST_NAMED else ''}.",
            "It failed too often to decide them; nothing was sold or refused.",
            "`claimsvc dead-letters` lists them. Mend what failed, then requeue or discard each.",
        )
