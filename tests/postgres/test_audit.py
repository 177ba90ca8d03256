"""The audit: entries are added, read back, and never changed or removed, by whomever."""

import psycopg
import pytest

from claimsvc.domain import AuditEntry
from tests.support.databases import administrate
from tests.support.storage import entries_about, open_storage


def entry(reason: str, subject: str = "spring") -> AuditEntry:
    details = {"holders": [{"instance": "web-1", "ttl_seconds": {"a:6379": 19.5}}]}
    return AuditEntry("os-user:ann@here", "lock.release", "coupon", subject, reason, "request-1", details)


async def test_entries_are_read_back_newest_first_and_those_of_one_thing_only(database_url: str) -> None:
    async with open_storage(database_url) as (storage, _):
        for number in range(4):
            await storage.audit_log.record(entry(f"reason {number}"))
        await storage.audit_log.record(entry("another", subject="summer"))
        found = await entries_about(storage, "coupon", "spring", limit=3)
        assert [each.reason for each in found] == ["reason 3", "reason 2", "reason 1"]
        assert await entries_about(storage, "claim", "spring", limit=3) == []
    newest = found[0]
    assert newest.at is not None
    assert newest.at.tzinfo is not None
    assert newest == AuditEntry(
        "os-user:ann@here",
        "lock.release",
        "coupon",
        "spring",
        "reason 3",
        "request-1",
        entry("").details,
        newest.at,
        newest.id,
    )


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit SET reason = 'another'",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit SET reason = 'nothing' WHERE false",
        """
        INSERT INTO audit (id, actor, action, subject_type, subject)
        OVERRIDING SYSTEM VALUE VALUES (1, 'a', 'b', 'c', 'd')
        ON CONFLICT (id) DO UPDATE SET reason = 'another'
        """,
        "SET session_replication_role = replica; DELETE FROM audit",
    ],
)
async def test_the_database_refuses_to_change_or_remove_an_entry(database_url: str, change: str) -> None:
    async with open_storage(database_url) as (storage, _):
        await storage.audit_log.record(entry("kept"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="never changed or removed"):
            administrate(database_url, change)
        [kept] = await entries_about(storage, "coupon", "spring", limit=9)
        assert kept.reason == "kept"
