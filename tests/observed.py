"""An observer that remembers what it was told."""

from collections import Counter


class Observed:
    """`ports.LockObserver`, `BatchObserver` and `StorageObserver` in one."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.retries = 0
        self.waits: list[tuple[str, float]] = []
        self.holds: list[float] = []
        self.lost_locks = 0
        self.hints: Counter[str] = Counter()
        self.waiters = 0
        self.batches: list[int] = []
        self.connections: Counter[str] = Counter()
        self.violations = 0

    def attempted(self, coupon_name: str, result: str) -> None:
        self.attempts[result] += 1

    def retried(self) -> None:
        self.retries += 1

    def waited(self, result: str, seconds: float) -> None:
        self.waits.append((result, seconds))

    def held(self, seconds: float) -> None:
        self.holds.append(seconds)

    def lost(self, coupon_name: str) -> None:
        self.lost_locks += 1

    def hinted(self, result: str) -> None:
        self.hints[result] += 1

    def lock_waiters(self, change: int) -> None:
        self.waiters += change

    def batched(self, size: int) -> None:
        self.batches.append(size)

    def claims_waiting(self, count: int) -> None:
        pass

    def transaction_ended(self, seconds: float) -> None:
        pass

    def pool_changed(self, state: str, change: int) -> None:
        self.connections[state] += change

    def invariant_violated(self) -> None:
        self.violations += 1
