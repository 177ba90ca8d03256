"""Which way attempts are decided, and what becomes of those that the database refuses."""

import time
from collections.abc import Awaitable, Callable, Sequence

import psycopg

from claimsvc.domain import Attempt, ClaimOutcome, SoldOut
from claimsvc.errors import ClaimsvcError, InvariantViolatedError
from claimsvc.ports import Decision, StorageObserver
from claimsvc.postgres.claiming.code_pool import CodesChanged
from claimsvc.postgres.claiming.fast_path import FastPath, FastPathOutcome, NeedsFullPath
from claimsvc.postgres.claiming.full_path import FullPath
from claimsvc.postgres.database import Database

_REMEMBERED = 10_000
# Whether a coupon still has rules is asked again after this time; until then its claims are spared that question.
_RULES_BELIEVED_SECONDS = 1.0
_NEEDS_FULL_PATH = NeedsFullPath()


class Dispatcher:
    """Sorts attempts: those on plain coupons go the quick way, those with rules or wishes the other.

    A coupon's attempts go one way together, so that they are decided in their order. What is remembered of coupons is
    only a guess at which question to ask first.

    Args:
        database: where statements run.
        codes_changed: see `CodesChanged`.
    """

    def __init__(
        self,
        database: Database,
        *,
        observer: StorageObserver,
        codes_changed: CodesChanged,
    ) -> None:
        self._fast_path = FastPath(database)
        self._full_path = FullPath(database, codes_changed=codes_changed)
        self._observer = observer
        # Coupons that had rules when they were last asked, and until when that is believed (monotonic seconds).
        self._with_rules: dict[str, float] = {}
        # Coupons of which nothing was left.
        self._sold_out: set[str] = set()

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """See `ports.Storage`."""
        if not self._sold_out.issuperset([attempt.coupon_name for attempt in attempts]):
            return await self._admit_all(attempts)
        # A sold-out coupon mostly stays so. To see that takes no row lock, and no commit that is flushed to disk.
        looked = await self.look(attempts)
        undecided = [attempt for attempt, outcome in zip(attempts, looked, strict=True) if outcome is None]
        admitted = iter(await self._admit_all(undecided) if undecided else ())
        return [next(admitted) if outcome is None else outcome for outcome in looked]

    async def look(self, attempts: Sequence[Attempt]) -> list[ClaimOutcome | None]:
        """See `ports.Storage`."""
        started = time.perf_counter()
        try:
            ruled = self._full_path_names(attempts)
            plain = [attempt for attempt in attempts if attempt.coupon_name not in ruled]
            looked = iter(await self._fast_path.look(plain) if plain else ())
            first = [_NEEDS_FULL_PATH if attempt.coupon_name in ruled else next(looked) for attempt in attempts]
            with_rules = [
                attempt for attempt, seen in zip(attempts, first, strict=True) if isinstance(seen, NeedsFullPath)
            ]
            answered = iter(await self._full_path.look(with_rules) if with_rules else ())
            return [next(answered) if isinstance(seen, NeedsFullPath) else seen for seen in first]
        finally:
            self._observer.transaction_ended(time.perf_counter() - started)

    def _full_path_names(self, attempts: Sequence[Attempt]) -> set[str]:
        """Coupons whose attempts go the long way."""
        now = time.monotonic()
        return {
            each.coupon_name
            for each in attempts
            if not _is_plain(each) or self._with_rules.get(each.coupon_name, now) > now
        }

    async def _admit_all(self, attempts: Sequence[Attempt]) -> list[Decision]:
        ruled = self._full_path_names(attempts)
        plain = [attempt for attempt in attempts if attempt.coupon_name not in ruled]
        decided = iter(await self._halving(self._fast_path.admit, plain) if plain else ())
        first = [_NEEDS_FULL_PATH if attempt.coupon_name in ruled else next(decided) for attempt in attempts]
        with_rules = [attempt for attempt, seen in zip(attempts, first, strict=True) if isinstance(seen, NeedsFullPath)]
        if not with_rules:
            decisions = [seen for seen in first if not isinstance(seen, NeedsFullPath)]
        else:
            answered = iter(await self._admit_by_full_path(with_rules, alone=len(with_rules) == len(attempts)))
            decisions = [next(answered) if isinstance(seen, NeedsFullPath) else seen for seen in first]
        self._note(attempts, first, decisions)
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
            # The others of this batch are committed by now, and have their answers whatever becomes of these.
            return [error] * len(attempts)

    async def _halving(
        self, admit: Callable[[Sequence[Attempt]], Awaitable[Sequence[FastPathOutcome]]], attempts: Sequence[Attempt]
    ) -> list[FastPathOutcome | ClaimsvcError]:
        """What `admit` says of the attempts. A row that the database refuses is found by halving, and sinks alone."""
        started = time.perf_counter()
        try:
            return list(await admit(attempts))
        except InvariantViolatedError:
            self._observer.invariant_violated()
            raise
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            if len(attempts) == 1:
                self._observer.invariant_violated()
                refused = InvariantViolatedError("the database refused a claim that the service's rules admit")
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

    def _note(
        self,
        attempts: Sequence[Attempt],
        first: Sequence[FastPathOutcome | ClaimsvcError],
        decisions: Sequence[Decision],
    ) -> None:
        names = [attempt.coupon_name for attempt in attempts]
        self._sold_out.difference_update(names)
        for known in (self._sold_out, self._with_rules):
            if len(known) + len(names) > _REMEMBERED:
                known.clear()
        self._sold_out.update(name for name, each in zip(names, decisions, strict=True) if type(each) is SoldOut)
        now = time.monotonic()
        for attempt, seen in zip(attempts, first, strict=True):
            if (
                isinstance(seen, NeedsFullPath)
                and _is_plain(attempt)
                and self._with_rules.get(attempt.coupon_name, now) <= now
            ):
                self._with_rules[attempt.coupon_name] = now + _RULES_BELIEVED_SECONDS


def _is_plain(attempt: Attempt) -> bool:
    return attempt.options is None or attempt.options.is_plain
