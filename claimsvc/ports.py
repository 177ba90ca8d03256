"""The protocols between the rooms: what a strategy offers, and what it needs."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from claimsvc.domain import (
    AlreadyCancelled,
    AlreadyRedeemed,
    AmountBelowClaimed,
    AmountIsCodes,
    ApiKey,
    AuditEntry,
    AuditFilter,
    AuditPosition,
    Campaign,
    Cancelled,
    Claim,
    ClaimPosition,
    Code,
    CodeCounts,
    CodeExpired,
    CodeNotClaimed,
    CodesAdded,
    Confirmed,
    Coupon,
    CouponDetail,
    CouponExists,
    Eligibility,
    Erased,
    HeldLock,
    HoldExpired,
    KeyReused,
    ListKind,
    ListReplaced,
    LockNotHeld,
    LockReleased,
    LocksSeen,
    NewCode,
    Once,
    Outcome,
    PatternTooSmall,
    PeriodIsEmpty,
    PurgeReport,
    Quota,
    QuotaStanding,
    Redeemed,
    RefusedRow,
    Replayed,
    RowsRefused,
    Scope,
    StrategyName,
    TokenRefused,
    TokenUser,
    UnknownClaim,
    UnknownCode,
    UnknownCoupon,
    Want,
)
from claimsvc.errors import ClaimsvcError


@dataclass(slots=True)
class LockWait:
    """When a lock was wanted, and when it was had: monotonic seconds."""

    wanted_at: float
    had_at: float | None = None


@dataclass(slots=True)
class Stages:
    """When claims that were decided together came how far: monotonic seconds, None for where they never came."""

    lock_wait: LockWait | None = None
    taken_at: float | None = None
    decided_at: float | None = None

    def seconds(self, arrived_at: float, ended_at: float) -> dict[str, float]:
        """How long each stage took for a claim that arrived and ended then; only stages that it came to.

        `queue_wait` is all of its waiting but `lock_wait`; `transaction` includes the wait for a connection.
        """
        taken_at = ended_at if self.taken_at is None else self.taken_at
        found = {"queue_wait": taken_at - arrived_at}
        if self.lock_wait is not None:
            had_at = taken_at if self.lock_wait.had_at is None else self.lock_wait.had_at
            # Who came while the lock was held already, or was being waited for, has waited less for it, or not at all.
            found["lock_wait"] = max(0.0, had_at - max(arrived_at, self.lock_wait.wanted_at))
            found["queue_wait"] -= found["lock_wait"]
        if self.taken_at is not None:
            found["transaction"] = (ended_at if self.decided_at is None else self.decided_at) - self.taken_at
        return found


class ClaimAnswer(asyncio.Future[Outcome]):
    """The answer to a claim, to come.

    `stages` is set when it comes. `mark` is for whoever watches from outside: what it wants to find on the claim when
    that is decided. There is one of these for each claim, so it has no more than it must: neither is set before it is
    used, and `getattr` has to be asked for them.
    """

    __slots__ = ("mark", "stages")
    mark: object
    stages: Stages

    def follow(self, work: Coroutine[Any, Any, Outcome]) -> None:
        """Become what this work comes to, in a task of its own. To cancel one of the two is to cancel the other."""
        task = asyncio.ensure_future(work)

        def ended(_: object) -> None:
            if task.cancelled():
                self.cancel()
            elif (error := task.exception()) is not None:
                if not self.done():
                    self.set_exception(error)
            elif not self.done():
                self.set_result(task.result())

        task.add_done_callback(ended)
        self.add_done_callback(lambda _: task.cancel())


class Claims(Protocol):
    """Where claims are made."""

    def claim(self, coupon_name: str, user_id: str, want: Want | None = None) -> ClaimAnswer:
        """Claim one unit of a coupon for a user; `want` is what is asked for beyond that.

        To cancel the answer does not cancel the claim half-way: it completes, or it never was.

        Returns:
            The answer to come: an outcome; a `LockBusyError`, if nothing was decided within the time that a claim may
            wait for the lock; or an `UnavailableError`, if PostgreSQL or a majority of the masters does not answer, or
            the service is full.
        """
        ...

    async def drain(self) -> None:
        """Finish every claim that was accepted and refuse new ones with `UnavailableError`."""
        ...


class AnyClaims(Claims, Protocol):
    """Where claims are made that may leave open of which coupon."""

    def claim_first(self, coupon_type: str | None, user_id: str, want: Want | None = None) -> ClaimAnswer:
        """Claim one unit of the oldest coupon that has one, of this type or of any: see `Claims.claim`."""
        ...


class Strategy(Claims, Protocol):
    """One way to admit claims. Every implementation passes `tests/behaviour`."""

    name: StrategyName


class Counters(Protocol):
    """Counts of what is left, kept outside the database: quick, and only ever advice.

    Every method raises `UnavailableError` when the counters cannot be reached.
    """

    async def take(self, coupon_name: str, units: int) -> int | None:
        """Take up to so many units, atomically. Returns how many there were; None if nothing is known."""
        ...

    async def give_back(self, coupon_name: str, units: int) -> None:
        """Put units back that were taken and not used; nothing if nothing is known."""
        ...

    async def learn(self, coupon_name: str, remaining_amount: int) -> None:
        """Start counting from what the database says, unless somebody was quicker."""
        ...

    async def count(self, coupon_name: str) -> int | None:
        """What the counter says is left; None if nothing is known."""
        ...

    async def forget(self, coupon_name: str, count: int) -> None:
        """Forget the count if it is still this one, so that it is learnt anew."""
        ...


class Lease(Protocol):
    """Locks that are held, for now."""

    coupon_names: Sequence[str]
    handed_over: Sequence[str]
    """Once given back: those for which another instance was woken. It is its turn now, not ours."""

    def seconds_left(self) -> float:
        """How long the locks are certainly still ours; 0 or less once they may be another's."""
        ...

    async def is_wanted(self) -> bool:
        """Whether another instance waits for them."""
        ...


class Lock(Protocol):
    """Locks on coupons' names, shared by every instance.

    Safe to cancel at any moment: no lock is left behind. Giving one back never raises. Both ways of holding raise
    `UnavailableError` when a majority of the masters does not answer.
    """

    def hold_free(self, coupon_names: Sequence[str]) -> AbstractAsyncContextManager[Lease]:
        """Take those locks that are free, in one attempt, and give them back on leaving.

        The lease tells which; it may be none.
        """
        ...

    def hold(self, coupon_name: str, *, was_busy: bool = False) -> AbstractAsyncContextManager[Lease]:
        """Take the lock, waiting as the retry policy allows, and give it back on leaving.

        Args:
            was_busy: the first attempt was just made (by `hold_free`), so begin with the first pause.

        Raises:
            LockBusyError: others held it through every attempt.
        """
        ...


class Locksmith(Protocol):
    """What operators see of the locks, and do to one. All raise `UnavailableError` without a majority of masters."""

    async def held(self) -> LocksSeen:
        """The locks of this moment. Takes none, and keeps nobody waiting."""
        ...

    async def look(self, coupon_name: str) -> list[HeldLock]:
        """The same of one coupon, however many others there are: usually one, none if it is free."""
        ...

    async def release(
        self, coupon_name: str, *, actor: str, reason: str, request_id: str | None = None
    ) -> LockReleased | LockNotHeld:
        """Give a lock back by force, and wake who waits for it. It is audited first, or not done.

        The holder is not told: its claims are decided by PostgreSQL all the same, and it finds out when it gives back.

        Raises:
            UnavailableError: also without PostgreSQL, which keeps the audit.
        """
        ...


class AuditLog(Protocol):
    """Who did what, kept for ever. Each raises `UnavailableError` when the database does not answer in time."""

    async def record(self, entry: AuditEntry) -> None:
        """Write an entry; it is committed when this returns."""
        ...

    async def entries(self, asked: AuditFilter, *, after: AuditPosition | None, limit: int) -> list[AuditEntry]:
        """What was done, newest first, from just after the position `after`.

        Of one claim its making is told too, as its row has it: most claims have no entry of their own.
        """
        ...


class Exports(Protocol):
    """What is handed on to other programs, in whole."""

    async def claims(self, coupon_name: str) -> AsyncIterator[bytes] | UnknownCoupon:
        """Every claim of a coupon that there was, oldest first, as CSV with a line of names, in parts.

        Raises:
            UnavailableError: the database does not answer in time; so does the iterator, and then it is not whole.
        """
        ...


class Erasure(Protocol):
    """Forgetting users."""

    async def erase(self, user_id: str, *, actor: str, request_id: str | None = None) -> Erased:
        """Have nothing name this user any more, and keep all counts. It is audited, without the user.

        What the user does meanwhile may be left over, and whatever is done before this fails stays done: it is safe to
        ask again.

        Raises:
            UnavailableError: the database does not answer in time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that asks to be admitted. The caller makes the id (a UUID's usual text), so that a claim whose commit
    was lost sight of can be recognized. `want` is what it asks for beyond a unit."""

    claim_id: str
    coupon_name: str
    user_id: str
    want: Want | None = None


Decision = Outcome | ClaimsvcError
"""What became of one attempt among several: its outcome, or why it alone has none."""


class Storage(Protocol):
    """Coupons and claims at rest. PostgreSQL alone decides who gets a unit.

    Every method raises `UnavailableError` when the database does not answer in time.
    """

    async def admit(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide the attempts, of one coupon or several, in one transaction and in their order.

        The answers come in that order too, once they are committed.

        An attempt that cannot be written does not sink the others: it has its error for an answer.

        Correct whoever else calls it at the same time, with the lock or without it. Who holds a claim already gets
        `AlreadyClaimed` and takes no stock; the same user twice in `attempts` is admitted once.
        """
        ...

    async def look(self, attempts: Sequence[Attempt]) -> list[Outcome | None]:
        """What can be said of the attempts without deciding them, in their order: all but `Claimed`.

        None for a user who holds no claim while something is left. Takes no lock and waits for nobody.
        """
        ...

    async def coupon(self, name: str, *, claimants: int) -> CouponDetail | None:
        """The coupon with its first `claimants` claimants, in one snapshot; None if there is no such coupon."""
        ...

    async def coupons(self, *, search: str | None, after: str | None, limit: int) -> list[Coupon]:
        """Coupons by name, those that contain `search` (case-insensitive), from just after the name `after`."""
        ...

    async def claims(self, coupon_name: str, *, after: ClaimPosition | None, limit: int) -> list[Claim] | UnknownCoupon:
        """The active claims of a coupon, oldest first, from just after the position `after`."""
        ...

    async def claim(self, claim_id: str) -> Claim | None: ...

    async def stock(self, names: Sequence[str]) -> list[Coupon]:
        """Those of the named coupons that exist."""
        ...

    async def check(self) -> None:
        """Raise `UnavailableError`, saying what is wrong, unless the database answers with the current schema."""
        ...


class Shelf(Storage, Protocol):
    """Storage that knows what may be claimed."""

    async def on_offer(self, coupon_type: str | None) -> list[str]:
        """The first coupons of a type, or of any, that can be claimed now, oldest first.

        If there are none, the newest that cannot; none at all if there is no coupon of the type.
        """
        ...


class Upkeep(Protocol):
    """What keeps the database in order. To be done by anybody at any time, and by several at once.

    Every method raises `UnavailableError` as those of `Storage`. Names come in order, from just after `after`; each
    removal is one transaction, of at most `limit` rows of a table.
    """

    async def coupons_with_due_holds(self, *, after: str, limit: int) -> list[str]: ...

    async def settle_holds(self, coupon_name: str, *, limit: int) -> int:
        """Give back the units of holds that are over, of the oldest first. Returns how many."""
        ...

    async def purge_answers(self, *, limit: int) -> int:
        """Remove answers that are not given again any more. Returns how many."""
        ...

    async def purge_lists(self, *, limit: int) -> int:
        """Remove entries of lists that were replaced. Returns how many."""
        ...

    async def coupons_over(self, *, after: str, limit: int, for_days: int) -> list[str]:
        """Coupons that ended or were archived so many days ago, whichever came first."""
        ...

    async def purge_coupon(self, coupon_name: str, *, for_days: int, limit: int, actor: str) -> PurgeReport:
        """Remove claims of a coupon with their codes; if there are none, what else it has; and then the coupon.

        Nothing is removed unless it is over for so long. An audit entry of what is removed is written with it.
        """
        ...

    async def count_purgeable(self) -> PurgeReport:
        """How many answers and entries of lists could be removed."""
        ...

    async def count_coupon(self, coupon_name: str) -> PurgeReport:
        """What would have to be removed for this coupon to be gone."""
        ...


class JobObserver(Protocol):
    """What the jobs tell whoever watches them.

    A `job` is `sweep`, `reconcile` or `purge`. Its `result` is `done`, `failed`, or `elsewhere` when another instance
    was at it. Its `items` are holds that ended, counters that had drifted, or rows that were removed.
    """

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None: ...


ChangeAnswer = CouponDetail | UnknownCoupon | AmountBelowClaimed | AmountIsCodes | PeriodIsEmpty | Replayed | KeyReused


class Campaigns(Protocol):
    """Offering coupons, and changing them. Every method raises `UnavailableError` as those of `Storage`."""

    async def create(
        self,
        name: str,
        amount: int,
        strategy: StrategyName,
        campaign: Campaign,
        once: Once | None = None,
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Coupon | CouponExists | Replayed | KeyReused:
        """Offer a coupon, and keep the audit's entry of it. With `once` the answer is kept, and told again."""
        ...

    async def change(
        self,
        name: str,
        change: Mapping[str, Any],
        entry: AuditEntry,
        *,
        archive: bool = False,
        once: Once | None = None,
    ) -> ChangeAnswer:
        """Change a coupon, and keep the audit's entry of it, or do neither. The result names no claimants.

        Args:
            change: new values by the names of `Campaign`, and `amount`; what is not there stays.
            archive: also close it for good; once it is closed it stays so.
            once: that the answer is kept, and told again to who asks again.
        """
        ...


class Transitions(Protocol):
    """What becomes of claims. Every method raises `UnavailableError` as those of `Storage`; to ask again is safe."""

    async def cancel(
        self, claim_id: str, entry: AuditEntry
    ) -> Cancelled | HoldExpired | AlreadyRedeemed | UnknownClaim:
        """Give a claim back, held or confirmed, and exactly one unit with it; the audit's entry is of that alone.

        A code that was shown is nobody's any more. Where codes are generated a new one takes its place; of a coupon
        whose codes were brought, there is one less.
        """
        ...

    async def confirm(
        self, claim_id: str, once: Once | None = None, *, actor: str = "claimant", request_id: str | None = None
    ) -> Confirmed | HoldExpired | AlreadyCancelled | UnknownClaim | Replayed | KeyReused:
        """Make a claim that is held its user's for good, and keep the audit's entry of it; the user itself does so,
        unless `actor` says otherwise. With `once` the answer is kept, and told again."""
        ...


class Codes(Protocol):
    """Unique codes of coupons. Every method raises `UnavailableError` as those of `Storage`."""

    async def add(
        self,
        coupon_name: str,
        rows: AsyncIterator[Sequence[NewCode | RefusedRow]],
        entry: AuditEntry,
        *,
        atomic: bool,
        once: Once | None = None,
    ) -> CodesAdded | RowsRefused | UnknownCoupon | Replayed | KeyReused:
        """Add codes to a coupon, whose amount grows with them; with its first ones, it becomes how many they are.

        Safe to ask again: what was added is then refused as existing; or with `once`, whose answer is kept as soon as
        all is added, everything is told again.

        Args:
            atomic: all of them or none; else those that can be added, some thousand at a time.
        """
        ...

    async def generate(
        self,
        coupon_name: str,
        count: int,
        pattern: str,
        expires_at: datetime | None,
        entry: AuditEntry,
        once: Once | None = None,
    ) -> CodesAdded | PatternTooSmall | CodeExpired | UnknownCoupon | Replayed | KeyReused:
        """The same with codes that are made at random, as `GENERATION_PATTERN` describes."""
        ...

    async def redeem(
        self, code: str, entry: AuditEntry, once: Once | None = None
    ) -> Redeemed | AlreadyRedeemed | CodeExpired | CodeNotClaimed | UnknownCode | Replayed | KeyReused:
        """Use a code, once."""
        ...

    async def code(self, code: str) -> Code | None: ...

    async def count(self, coupon_type: str | None) -> CodeCounts:
        """How many codes the coupons of a type have; None for coupons without one."""
        ...

    async def expire_due(self) -> int:
        """Take codes out of stock that nobody has and that can be redeemed no more; some of them, if there are many.

        Returns how many.
        """
        ...

    async def types(self) -> list[str | None]:
        """The types of which there are coupons with codes."""
        ...


class CodeCounters(Protocol):
    """Counts of the codes of a type (None for coupons without one), kept outside the database for whoever reads them.

    Every method raises `UnavailableError` when they cannot be reached.
    """

    async def begin(self, coupon_type: str | None) -> int:
        """A number for a count that begins now, higher than those of all that have begun before."""
        ...

    async def put(self, coupon_type: str | None, number: int, counts: CodeCounts) -> bool:
        """Keep this count, unless one with a higher number is kept. Whether the number is known: else begin anew."""
        ...

    async def read(self, coupon_type: str | None) -> CodeCounts | None:
        """The counts that are kept; None if there are none."""
        ...


class Audience(Protocol):
    """Who may claim. Every method raises `UnavailableError` as those of `Storage`."""

    async def eligibility(
        self, coupon_name: str, user_id: str, want: Want, once: Once | None = None
    ) -> Eligibility | UnknownCoupon | Replayed | KeyReused:
        """What would become of such a claim in this moment, without claiming."""
        ...

    async def replace_list(
        self, coupon_name: str, kind: ListKind, users: AsyncIterator[Sequence[str]], entry: AuditEntry
    ) -> ListReplaced | UnknownCoupon:
        """Load a list, and put it in force in one moment: a claim sees the old list or the new one, and that whole.

        Nothing of it is kept if `users` raises. Of two that are loaded at the same time, the one that was begun last is
        in force in the end.

        Args:
            users: in any order, and as often as they like; some at a time.
            entry: the audit's, kept when the list is put in force, with the number of users.
        """
        ...

    async def remove_list(self, coupon_name: str, kind: ListKind, entry: AuditEntry) -> ListReplaced | UnknownCoupon:
        """Take a list away, if there is one; the audit's entry is of that alone."""
        ...


class ApiKeys(Protocol):
    """Keys of those who may do what not everybody may. Each method raises `UnavailableError` without the database."""

    async def create(
        self, digest: bytes, *, label: str, scopes: Collection[Scope], expires_seconds: float | None, actor: str
    ) -> ApiKey:
        """Keep a key that was made, by its SHA-256. It is audited in the same transaction."""
        ...

    async def revoke(self, key_id: str, *, actor: str) -> bool:
        """End a key, and audit it; whether there was one of that id that had not been revoked."""
        ...

    async def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        ...

    async def of_digest(self, digest: bytes) -> ApiKey | None:
        """The key with this SHA-256; None if there is none, or it has expired or was revoked.

        What it says of revoking may be some seconds old.
        """
        ...


class Tokens(Protocol):
    """Users' tokens."""

    async def user_of(self, token: str) -> TokenUser | TokenRefused:
        """Whom a token is for. It is looked at closely, and nothing of it is believed before its signature is."""
        ...


class HealthCheck(Protocol):
    """One dependency, as `/readyz` sees it."""

    async def __call__(self) -> None:
        """Return if it is usable; else raise `UnavailableError` that says what is wrong."""
        ...


class BatchObserver(Protocol):
    """What the batcher tells whoever watches it."""

    def batched(self, size: int) -> None: ...
    def claims_waiting(self, count: int) -> None: ...


class StorageObserver(Protocol):
    """What the storage tells whoever watches it. A connection's `state` is `idle` or `in_use`."""

    def transaction_ended(self, seconds: float) -> None: ...
    def pool_changed(self, state: str, change: int) -> None: ...
    def invariant_violated(self) -> None: ...


class MasterObserver(Protocol):
    """What the clients of the masters tell whoever watches them.

    Whether a master is up is told once at the start, then after each probe. A call's `seconds` end with its answer or
    with its failure; a call that was not made, because the master is known to be down, is not told. Of a master's
    memory, `limit_bytes` is what it may use, or what its machine has.
    """

    def master_probed(self, master: str, up: bool) -> None: ...
    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None: ...
    def master_called(self, master: str, seconds: float) -> None: ...


class LockObserver(Protocol):
    """What the lock tells whoever watches it.

    An attempt's or a wait's `result` is `acquired`, `busy` or `unavailable` (a wait's also `cancelled`); a hint's is
    `sent`, `used`, or `late` when nobody here waited for it any more. Locks that are taken together were waited for
    and are held together. `taken` begins what `held` ends.
    """

    def attempted(self, coupon_name: str, result: str) -> None: ...
    def retried(self, coupon_name: str) -> None: ...
    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None: ...
    def taken(self, coupon_names: Sequence[str]) -> None: ...
    def held(self, coupon_names: Sequence[str], seconds: float) -> None: ...
    def lost(self, coupon_name: str) -> None: ...
    def hinted(self, result: str) -> None: ...
    def lock_waiters(self, change: int) -> None: ...


class Quotas(Protocol):
    """How often somebody may ask, for as long as that can be learnt: whatever cannot is let through."""

    @property
    def quotas(self) -> Sequence[Quota]:
        """Those that there are."""
        ...

    async def take(self, subjects: Mapping[str, str]) -> Sequence[QuotaStanding]:
        """Count a request, unless a quota is exceeded. It raises nothing, and waits for nothing that is late.

        Args:
            subjects: whose request it is, by the names of the quotas.

        Returns:
            How the subjects stand, without those of whom that cannot be learnt. The first quota that is exceeded is the
            last one that was asked about.
        """
        ...


class QuotaObserver(Protocol):
    """What the quotas tell whoever watches them. A `result` is `allowed`, `refused` or `unknown`."""

    def quota_decided(self, quota_name: str, result: str) -> None: ...
