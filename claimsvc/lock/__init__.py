"""The Redlock `claim:coupon:<name>` on independent Redis masters."""

from claimsvc.lock.identity import instance_name
from claimsvc.lock.locksmith import Locksmith
from claimsvc.lock.redlock import Redlocks, open_redlocks

__all__ = ["Locksmith", "Redlocks", "instance_name", "open_redlocks"]
