"""An observer that remembers what it was told."""

from collections import Counter
from collections.abc import Sequence


class Observed:
    """`ports.MasterObserver`, `LockObserver`, `CombineObserver`, `BatchObserver`, `StorageObserver`, `JobObserver`."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.retries = 0
        self.waits: list[tuple[str, float]] = []
        self.held_now: set[str] = set()
        self.holds: list[float] = []
        self.calls: Counter[str] = Counter()
        self.memory: dict[str, tuple[int, int]] = {}
        self.lost_locks = 0
        self.hints: Counter[str] = Counter()
        self.waiters = 0
        self.claims_combined: Counter[str] = Counter()
        self.combine_waits: list[float] = []
        self.batches_taken_back: Counter[str] = Counter()
        self.batches: list[int] = []
        self.connections: Counter[str] = Counter()
        self.violations = 0
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.job_items: Counter[str] = Counter()

    def master_probed(self, master: str, up: bool) -> None:
        pass

    def master_memory(self, master: str, used_bytes: int, limit_bytes: int) -> None:
        self.memory[master] = (used_bytes, limit_bytes)

    def master_called(self, master: str, seconds: float) -> None:
        self.calls[master] += 1

    def attempted(self, coupon_name: str, result: str) -> None:
        self.attempts[result] += 1

    def retried(self, coupon_name: str) -> None:
        self.retries += 1

    def waited(self, coupon_names: Sequence[str], result: str, seconds: float) -> None:
        self.waits.append((result, seconds))

    def taken(self, coupon_names: Sequence[str]) -> None:
        self.held_now.update(coupon_names)

    def held(self, coupon_names: Sequence[str], seconds: float) -> None:
        self.held_now.difference_update(coupon_names)
        self.holds.append(seconds)

    def lost(self, coupon_name: str) -> None:
        self.lost_locks += 1

    def hinted(self, result: str) -> None:
        self.hints[result] += 1

    def lock_waiters(self, change: int) -> None:
        self.waiters += change

    def combined(self, coupon_name: str, role: str, claims: int) -> None:
        self.claims_combined[role] += claims

    def combine_waited(self, coupon_name: str, seconds: float) -> None:
        self.combine_waits.append(seconds)

    def taken_back(self, coupon_name: str, found: str) -> None:
        self.batches_taken_back[found] += 1

    def batched(self, size: int) -> None:
        self.batches.append(size)

    def claims_waiting(self, count: int) -> None:
        pass

    def transaction_ended(self, seconds: float) -> None:
        pass

    def pool_changed(self, pool: str, state: str, change: int) -> None:
        self.connections[state] += change

    def invariant_violated(self) -> None:
        self.violations += 1

    def job_ended(self, job: str, result: str, seconds: float, items: int) -> None:
        self.jobs[job, result] += 1
        self.job_items[job] += items
