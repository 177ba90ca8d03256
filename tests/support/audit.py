"""What the audit says."""

from claimsvc.config import Settings
from claimsvc.connect import open_repositories
from claimsvc.domain import AuditEntry, AuditFilter


async def trail(database_url: str, coupon_name: str = "spring") -> list[AuditEntry]:
    """The last entries about a coupon, the newest first."""
    async with open_repositories(Settings(database_url=database_url, redis_urls=("redis://unused",))) as storage:
        found: list[AuditEntry] = await storage.audit_log.entries(
            AuditFilter("coupon", coupon_name), after=None, limit=10
        )
        return found
