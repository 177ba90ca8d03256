"""The ways to admit a claim, one file each, and the one that chooses among them."""

from claimsvc.strategies.by_coupon import StrategyByCoupon
from claimsvc.strategies.counter import CounterStrategy
from claimsvc.strategies.redlock import RedlockStrategy
from claimsvc.strategies.row_lock import RowLockStrategy

__all__ = ["CounterStrategy", "RedlockStrategy", "RowLockStrategy", "StrategyByCoupon"]
