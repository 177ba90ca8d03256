"""Sends attempts to the fast path or the full path, and isolates those that the database refuses."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import psycopg

from claimsvc.domain import Attempt, Claim, Claimed, ClaimOptions, ClaimOutcome, ClaimState, SoldOut
from claimsvc.errors import ClaimsvcError, InvariantViolatedError, UnavailableError
from claimsvc.ports import BatchDecisions, Decision, HandedBatch, StorageObserver
from claimsvc.postgres.claiming.fast_path import FastPath, FastPathOutcome, NeedsFullPath
from claimsvc.postgres.claiming.fence import begin_fenced, names_of
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.code_changes import CodesChanged
from claimsvc.postgres.connections import Driver
from claimsvc.postgres.database import Database

_REMEMBERED = 10_000
# For how long a coupon is assumed to need the full path after its claims did; then they try the fast path again.
_ASSUMED_SECONDS = 1.0
_NEEDS_FULL_PATH = NeedsFullPath()
# With the 0.5 s that the batch has waited for its holder, this is less than a claim waits for the lock.
_WITHHOLD_LOCK_TIMEOUT = "600ms"

_Fenced = tuple[list[Decision], list[BatchDecisions | None]]


_RECALL = """
SELECT claim.id::text, claim.user_id, claim.claimed_at, claim.held_until, code.code
FROM user_claims AS claim
LEFT JOIN codes AS code ON code.coupon_name = claim.coupon_name AND code.claim_id = claim.id
WHERE claim.coupon_name = %(coupon_name)s AND claim.id = ANY (%(ids)s::uuid[]) AND claim.state = 'active'
"""


class Dispatcher:
    """`ports.Admission` on PostgreSQL: attempts on plain coupons take the fast path, all others the full path.

    All attempts on a coupon in a batch take the same path, so that they are decided in their order. What is remembered
    about coupons only predicts which path to try first; the database decides.

    Args:
        database: where statements run.
        observer: receives transactions and violated invariants.
        codes_changed: see `CodesChanged`.
    """

    def __init__(
        self,
        database: Database,
        *,
        observer: StorageObserver,
        codes_changed: CodesChanged,
    ) -> None:
        self._database = database
        self._fast_path = FastPath(database)
        self._full_path = FullPath(database, codes_changed=codes_changed)
        self._observer = observer
        # Coupons that are assumed to need the full path, and until when (monotonic seconds).
        self._full_path_until: dict[str, float] = {}
        # Coupons that were sold out.
        self._sold_out: set[str] = set()

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """See `ports.Admission`."""
        if not self._sold_out.issuperset([attempt.coupon_name for attempt in attempts]):
            return await self._admit_all(attempts)
        # A sold-out coupon usually stays sold out, and reading takes no row lock and no commit flushed to disk.
        looked = await self.look(attempts)
        undecided = [attempt for attempt, outcome in zip(attempts, looked, strict=True) if outcome is None]
        admitted = iter(await self._admit_all(undecided) if undecided else ())
        return [next(admitted) if outcome is None else outcome for outcome in looked]

    async def admit_handed(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> _Fenced:
        """See `ports.FencedAdmission`."""
        started = time.perf_counter()
        try:
            outcomes, handed = await self._admit_fenced(attempts, batches)
        except InvariantViolatedError:
            self._observer.invariant_violated()
            raise
        except (psycopg.IntegrityError, psycopg.DataError):
            # One claim is refused by the database. Those of others are decided by those who handed them over.
            return await self.admit(attempts) if attempts else [], [None] * len(batches)
        finally:
            self._observer.transaction_ended(time.perf_counter() - started)
        self._sold_out.difference_update(names_of(attempts, batches))
        return outcomes, handed

    async def _admit_fenced(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> _Fenced:
        now = time.monotonic()
        names = names_of(attempts, batches)
        is_plain = all(map(_is_plain, attempts)) and all(all(map(_is_plain_option, each.options)) for each in batches)
        if not is_plain or any(self._full_path_until.get(name, now) > now for name in names):
            return await self._admit_fenced_by_full_path(attempts, batches)
        outcomes, handed = await self._fast_path.admit_handed(attempts, batches)
        # A batch that is left may have been decided before: the full path tells.
        left_attempts = [
            each for each, outcome in zip(attempts, outcomes, strict=True) if isinstance(outcome, NeedsFullPath)
        ]
        left_batches = [each for each, found in zip(batches, handed, strict=True) if found is None]
        if not left_attempts and not left_batches:
            return cast("_Fenced", (outcomes, handed))
        for each in left_attempts:
            self._assume_full_path(each.coupon_name, now)
        is_all_left = len(left_attempts) == len(attempts) and len(left_batches) == len(batches)
        # Unless all is left, the rest is already committed, so its decisions must be returned.
        more: Sequence[Decision]
        more_handed: Sequence[BatchDecisions | None] = [None] * len(left_batches)
        try:
            more, more_handed = await self._admit_fenced_by_full_path(left_attempts, left_batches)
        except (psycopg.IntegrityError, psycopg.DataError):
            if is_all_left:
                raise
            more = await self._admit_by_full_path(left_attempts, alone=False) if left_attempts else []
        except ClaimsvcError as error:
            if is_all_left:
                raise
            more = [error] * len(left_attempts)
        decided, decided_handed = iter(more), iter(more_handed)
        return (
            [next(decided) if isinstance(outcome, NeedsFullPath) else outcome for outcome in outcomes],
            [next(decided_handed) if found is None else cast("BatchDecisions", found) for found in handed],
        )

    async def _admit_fenced_by_full_path(self, attempts: Sequence[Attempt], batches: Sequence[HandedBatch]) -> _Fenced:
        return cast("_Fenced", await self._full_path.admit_handed(attempts, batches))

    async def withhold(self, batch: HandedBatch) -> bool:
        """See `ports.FencedAdmission`."""

        async def work(driver: Driver, in_doubt: bool) -> bool:
            ours = await begin_fenced(driver, [batch.coupon_name], [batch], lock_timeout=_WITHHOLD_LOCK_TIMEOUT)
            await driver.execute("COMMIT", prepare=False)
            return bool(ours)

        return await self._database.run_transaction(work)

    async def recall(self, batch: HandedBatch) -> list[Decision]:
        """See `ports.FencedAdmission`."""
        ids = [attempt.claim_id for attempt in batch.attempts]
        found = {
            id_: Claim(id_, batch.coupon_name, user_id, ClaimState.ACTIVE, claimed_at, held_until, code=code)
            for id_, user_id, claimed_at, held_until, code in await self._database.fetch(
                _RECALL, {"coupon_name": batch.coupon_name, "ids": ids}
            )
        }
        looked = await self.look(batch.attempts)
        return [
            Claimed(found[attempt.claim_id]) if attempt.claim_id in found else outcome or _unknown()
            for attempt, outcome in zip(batch.attempts, looked, strict=True)
        ]

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """See `ports.Admission`."""
        started = time.perf_counter()
        try:
            full_path_names = self._full_path_names(attempts)
            plain = [attempt for attempt in attempts if attempt.coupon_name not in full_path_names]
            fast = iter(await self._fast_path.look(plain) if plain else ())
            first = [_NEEDS_FULL_PATH if attempt.coupon_name in full_path_names else next(fast) for attempt in attempts]
            remaining = [
                attempt for attempt, outcome in zip(attempts, first, strict=True) if isinstance(outcome, NeedsFullPath)
            ]
            full = iter(await self._full_path.look(remaining) if remaining else ())
            return [next(full) if isinstance(outcome, NeedsFullPath) else outcome for outcome in first]
        finally:
            self._observer.transaction_ended(time.perf_counter() - started)

    def _full_path_names(self, attempts: Sequence[Attempt]) -> set[str]:
        """Return the coupons whose attempts go directly to the full path."""
        now = time.monotonic()
        return {
            each.coupon_name
            for each in attempts
            if not _is_plain(each) or self._full_path_until.get(each.coupon_name, now) > now
        }

    async def _admit_all(self, attempts: Sequence[Attempt]) -> list[Decision]:
        full_path_names = self._full_path_names(attempts)
        plain = [attempt for attempt in attempts if attempt.coupon_name not in full_path_names]
        fast = iter(await self._halving(self._fast_path.admit, plain) if plain else ())
        first = [_NEEDS_FULL_PATH if attempt.coupon_name in full_path_names else next(fast) for attempt in attempts]
        remaining = [
            attempt for attempt, outcome in zip(attempts, first, strict=True) if isinstance(outcome, NeedsFullPath)
        ]
        if not remaining:
            decisions = [outcome for outcome in first if not isinstance(outcome, NeedsFullPath)]
        else:
            full = iter(await self._admit_by_full_path(remaining, alone=len(remaining) == len(attempts)))
            decisions = [next(full) if isinstance(outcome, NeedsFullPath) else outcome for outcome in first]
        self._remember(attempts, first, decisions)
        return decisions

    async def _admit_by_full_path(self, attempts: Sequence[Attempt], *, alone: bool) -> list[Decision]:
        try:
            return [
                each
                for each in await self._halving(self._full_path.admit, attempts)
                if not isinstance(each, NeedsFullPath)
            ]
        except ClaimsvcError as error:
            if alone:
                raise
            # The rest of this batch is already committed, so its decisions must be returned.
            return [error] * len(attempts)

    async def _halving(
        self, admit: Callable[[Sequence[Attempt]], Awaitable[Sequence[FastPathOutcome]]], attempts: Sequence[Attempt]
    ) -> list[FastPathOutcome | ClaimsvcError]:
        """Admit the attempts. If the database refuses a row, find it by halving, so that only its own attempt fails."""
        started = time.perf_counter()
        try:
            return list(await admit(attempts))
        except InvariantViolatedError:
            self._observer.invariant_violated()
            raise
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            if len(attempts) == 1:
                self._observer.invariant_violated()
                refused = InvariantViolatedError("the database refused a claim that the service admitted")
                refused.__cause__ = error
                return [refused]
        finally:
            self._observer.transaction_ended(time.perf_counter() - started)
        half = len(attempts) // 2
        decisions: list[FastPathOutcome | ClaimsvcError] = []
        for part in (attempts[:half], attempts[half:]):
            try:
                decisions += await self._halving(admit, part)
            except ClaimsvcError as error:
                decisions += [error] * len(part)
        return decisions

    def _remember(
        self,
        attempts: Sequence[Attempt],
        first: Sequence[FastPathOutcome | ClaimsvcError],
        decisions: Sequence[Decision],
    ) -> None:
        names = [attempt.coupon_name for attempt in attempts]
        self._sold_out.difference_update(names)
        for remembered in (self._sold_out, self._full_path_until):
            if len(remembered) + len(names) > _REMEMBERED:
                remembered.clear()
        self._sold_out.update(name for name, each in zip(names, decisions, strict=True) if type(each) is SoldOut)
        now = time.monotonic()
        for attempt, outcome in zip(attempts, first, strict=True):
            if isinstance(outcome, NeedsFullPath) and _is_plain(attempt):
                self._assume_full_path(attempt.coupon_name, now)

    def _assume_full_path(self, coupon_name: str, now: float) -> None:
        if self._full_path_until.get(coupon_name, now) <= now:
            self._full_path_until[coupon_name] = now + _ASSUMED_SECONDS


def _is_plain(attempt: Attempt) -> bool:
    return _is_plain_option(attempt.options)


def _is_plain_option(options: ClaimOptions | None) -> bool:
    return options is None or options.is_plain


def _unknown() -> UnavailableError:
    return UnavailableError("the claim was not made, or has ended since: repeat it", dependency="claimsvc")
