"""Runs a job on one instance at a time: the one that gets the job's lock works through its chunks, others skip it."""

import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

import structlog

from claimsvc.errors import LockBusyError
from claimsvc.ports import JobObserver, Lease, Lock

_log = structlog.get_logger("claimsvc.jobs")

# A chunk is started only if more than this share of the lease is left.
_RESERVE = 0.25


async def run_exclusively(
    lock: Lock, job: str, chunks: AsyncGenerator[int, None], observer: JobObserver, *, wait_for_lock: bool = False
) -> bool:
    """Run the chunks of a job, unless another instance runs it.

    The lock only avoids duplicate work. A lease that expires early does no harm, because each chunk is a transaction
    that reads for itself what remains to be done.

    Args:
        lock: takes the lock `job:<job>`. No coupon has this name, because coupon names contain no colon.
        job: name of the job.
        chunks: does one chunk per step and yields its number of items.
        observer: receives the result.
        wait_for_lock: wait while another instance runs the job, as long as a claim waits for a coupon.

    Returns:
        Whether this instance ran any of it.

    Raises:
        UnavailableError: a majority of the masters does not answer, or a dependency of a chunk does not.
    """
    started = time.perf_counter()
    progress = _Progress(chunks)
    try:
        async with aclosing(chunks):
            more = True
            while more:
                async with _held(lock, f"job:{job}", wait_for_lock=wait_for_lock) as lease:
                    if not lease.coupon_names:
                        break
                    reserve = lease.seconds_left() * _RESERVE
                    more = await progress.step()
                    while more and lease.seconds_left() > reserve:
                        more = await progress.step()
    except LockBusyError:
        pass
    except Exception:
        observer.job_ended(job, "failed", time.perf_counter() - started, progress.items)
        raise
    seconds = time.perf_counter() - started
    observer.job_ended(job, "done" if progress.has_started else "elsewhere", seconds, progress.items)
    if progress.items:
        _log.info("job done", job=job, items=progress.items, seconds=round(seconds, 3))
    return progress.has_started


def _held(lock: Lock, name: str, *, wait_for_lock: bool) -> AbstractAsyncContextManager[Lease]:
    return lock.hold(name) if wait_for_lock else lock.hold_free([name])


class _Progress:
    """The chunks of a job, and what has been done of them."""

    def __init__(self, chunks: AsyncGenerator[int, None]) -> None:
        self._chunks = chunks
        self.has_started = False
        self.items = 0

    async def step(self) -> bool:
        """Do the next chunk. Returns False if there was none."""
        self.has_started = True
        try:
            self.items += await anext(self._chunks)
        except StopAsyncIteration:
            return False
        return True
