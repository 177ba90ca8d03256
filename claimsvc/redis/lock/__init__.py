"""The Redlock `claim:coupon:<name>` on independent Redis masters."""

from claimsvc.redis.lock.identity import instance_name
from claimsvc.redis.lock.lock_admin import LockAdmin
from claimsvc.redis.lock.redlock import Redlocks, open_redlocks

__all__ = ["LockAdmin", "Redlocks", "instance_name", "open_redlocks"]
