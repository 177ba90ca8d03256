"""The Redlock `claim:coupon:<name>` on independent Redis masters."""

from claimsvc.lock.redlock import Redlocks, open_redlocks

__all__ = ["Redlocks", "open_redlocks"]
