"""What the audit says."""

from claimsvc.config import Settings
from claimsvc.connect import open_storage
from claimsvc.domain import AuditEntry


async def trail(database_url: str, coupon_name: str = "spring") -> list[AuditEntry]:
    """The last entries about a coupon, the newest first."""
    async with open_storage(Settings(database_url=database_url, redis_urls=("redis://unused",))) as storage:
        found: list[AuditEntry] = await storage.trail("coupon", coupon_name, limit=10)
        return found
