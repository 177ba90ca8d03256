"""One instance at a time: who has the job's lock works, chunk by chunk, and the others pass."""

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

import structlog

from claimsvc.errors import LockBusyError
from claimsvc.ports import JobObserver, Lease, Lock

_log = structlog.get_logger("claimsvc.jobs")

# When no more than this share of a lock's life is left, no other chunk is begun under it.
_RESERVE = 0.25


async def run_alone(
    lock: Lock, job: str, chunks: AsyncGenerator[int, None], observer: JobObserver, *, patient: bool = False
) -> bool:
    """Go through the chunks of a job, unless another instance is at it.

    The lock keeps instances from doing the same work twice, and no more than that. A lease that ends too early does no
    harm, because each chunk is a transaction that finds out for itself what there is to do.

    Args:
        job: its lock is that of a name with a colon, which no coupon can have.
        chunks: does a chunk for each step, and tells how many things that was.
        patient: wait for another instance as a claim does for a coupon.

    Returns:
        Whether any of it was done here.

    Raises:
        UnavailableError: a majority of the masters does not answer, or what a chunk needs does not.
    """
    started = time.perf_counter()
    turn = _Turn(chunks)
    try:
        async with aclosing(chunks):
            more = True
            while more:
                async with _held(lock, f"job:{job}", patient=patient) as lease:
                    if not lease.coupon_names:
                        break
                    reserve = lease.seconds_left() * _RESERVE
                    more = await turn.step()
                    while more and lease.seconds_left() > reserve:
                        more = await turn.step()
    except LockBusyError:
        pass
    except Exception:
        observer.job_ended(job, "failed", time.perf_counter() - started, turn.items)
        raise
    seconds = time.perf_counter() - started
    observer.job_ended(job, "done" if turn.has_begun else "elsewhere", seconds, turn.items)
    if turn.items:
        _log.info("job done", job=job, items=turn.items, seconds=round(seconds, 3))
    return turn.has_begun


def _held(lock: Lock, name: str, *, patient: bool) -> AbstractAsyncContextManager[Lease]:
    return lock.hold(name) if patient else lock.hold_free([name])


class _Turn:
    """How far the chunks have come."""

    def __init__(self, chunks: AsyncGenerator[int, None]) -> None:
        self._chunks = chunks
        self.has_begun = False
        self.items = 0

    async def step(self) -> bool:
        """Do the next chunk. Returns whether there was one."""
        self.has_begun = True
        try:
            self.items += await anext(self._chunks)
        except StopAsyncIteration:
            return False
        return True
