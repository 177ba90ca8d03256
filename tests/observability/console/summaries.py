"""What instances might have said, and what the console makes of it; without servers."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from claimsvc.domain import Coupon, StrategyName
from claimsvc.observability.console.diagnosis import judge
from claimsvc.observability.console.health import DependencyState
from claimsvc.observability.console.locks import LockInspection
from claimsvc.observability.console.membership import Heard
from claimsvc.observability.console.merge import PictureBuilder
from claimsvc.observability.console.picture import CouponRow, Picture
from claimsvc.observability.console.summary import Summary, add_up
from claimsvc.observability.console.verdict import Verdict
from claimsvc.observability.metrics import LATENCY_BOUNDS, Numbers

SPRING = Coupon("spring", 100, 34, StrategyName.REDLOCK, datetime(2026, 1, 1, tzinfo=UTC))
SOLD_OUT_SPRING = Coupon("spring", 100, 0, StrategyName.REDLOCK, datetime(2026, 1, 1, tzinfo=UTC))

# An instance that is one of two at a contended lock, or more.
TAKES_TURNS: Numbers = {
    "claimed": 1000,
    "attempts-acquired": 30,
    "attempts-busy": 60,
    "waits": 30,
    "wait_seconds": 0.66,
    "holds": 30,
    "hold_seconds": 0.33,
}


def summary(name: str, coupons: dict[str, Numbers] | None = None, **changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "id": name,
        "name": name,
        "started_at": time.time() - 60,
        "told_at": time.time(),
        "seconds": 1.0,
        "coupons": coupons or {},
        "all_coupons": add_up((coupons or {}).values()),
        "known": list(coupons or {}),
        "held": {},
        "process": {},
        "latency": [0.0] * len(LATENCY_BOUNDS),
        "masters": down(),
        "pool_size": 10,
        "events": [],
        "health": healthy(),
        **changes,
    }
    return Summary(**fields)


def healthy(**down_since: float) -> dict[str, DependencyState]:
    """Both dependencies are up, but for those that are down since then (seconds since 1970)."""
    now = time.time()
    return {
        name: DependencyState(
            name not in down_since, down_since.get(name, now - 60), now, "it is gone" * (name in down_since)
        )
        for name in ("postgresql", "redis")
    }


def heard(name: str, coupons: dict[str, Numbers] | None = None, **changes: Any) -> Heard:
    """An instance's last summary; `silent_seconds` is for how long it has said nothing since."""
    silent = changes.pop("silent_seconds", 0.0)
    return Heard(summary(name, coupons, **changes), silent, is_here=name == "here", is_silent=silent > 0)


def down(*names: str) -> dict[str, tuple[bool, int, float]]:
    """Three masters, of which these are down."""
    return {name: (name not in names, 10, 0.002) for name in ("a", "b", "c")}


def picture(*told: Heard, stock: Coupon = SPRING, strange_after_seconds: float = 0.0) -> Picture:
    builder = PictureBuilder(strange_after_seconds)
    return builder.build(told, builder.coupons_shown(told), {stock.name: stock}, hears_others=True)


def row(*told: Heard, stock: Coupon = SPRING) -> CouponRow:
    [found] = picture(*told, stock=stock).coupons
    return found


def verdict(*told: Heard, stock: Coupon = SPRING, looked: LockInspection | None = None) -> Verdict:
    return judge(picture(*told, stock=stock), looked)


def with_figures(numbers: Mapping[str, float], **changes: float) -> Numbers:
    return {**numbers, **changes}
