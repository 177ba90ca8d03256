"""The strategies for admitting claims, one file each, and `StrategyByCoupon`, which selects one for each claim."""

from claimsvc.claiming.strategies.by_coupon import StrategyByCoupon
from claimsvc.claiming.strategies.counter import CounterStrategy
from claimsvc.claiming.strategies.redlock import RedlockStrategy
from claimsvc.claiming.strategies.row_lock import RowLockStrategy

__all__ = ["CounterStrategy", "RedlockStrategy", "RowLockStrategy", "StrategyByCoupon"]
