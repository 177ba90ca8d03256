"""Collects the facts about all dependencies concurrently, with time limits, and judges them."""

import asyncio
from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError

from claimsvc.config import DatabaseSettings, Settings
from claimsvc.connect import read_database_facts, read_queues, read_row_holders
from claimsvc.doctor.database import judge_database, judge_row_holders, judge_schema
from claimsvc.doctor.findings import Finding, wrong
from claimsvc.doctor.masters import MasterFacts, judge_masters, read_master
from claimsvc.doctor.queues import judge_queues
from claimsvc.doctor.settings import judge_settings
from claimsvc.errors import Trouble, UnavailableError

# Time limit for all questions to one dependency together. Each answer has its own limit besides.
_MASTER_SECONDS = 5.0
_DATABASE_SECONDS = 10.0
_MEND = "start it, or correct CLAIMSVC_DATABASE_URL"


async def examine(settings: Settings) -> list[Finding]:
    """Run all checks. Takes about as long as the slowest answer, and at most ten seconds."""
    database, masters = await asyncio.gather(
        examine_database(settings),
        asyncio.gather(*(_ask(url, settings.redis_timeout_seconds) for url in settings.redis_urls)),
    )
    return [*judge_settings(settings), *database, *judge_masters(masters, settings)]


async def examine_database(settings: DatabaseSettings) -> list[Finding]:
    """Check only the database and its schema."""
    try:
        async with asyncio.timeout(_DATABASE_SECONDS):
            facts = await read_database_facts(settings)
            holders = await read_row_holders(settings) if facts.revision else []
            queues = await read_queues(settings) if facts.revision >= facts.newest_revision else []
    except UnavailableError as error:
        trouble = error.trouble or Trouble(error.detail, _MEND)
        return [wrong("database", f"it cannot be used: {trouble.found}", trouble.mend)]
    except TimeoutError:
        return [wrong("database", f"it did not answer within {_DATABASE_SECONDS:g} s", _MEND)]
    now = datetime.now(UTC) + timedelta(seconds=facts.clock_ahead_seconds)
    return [
        *judge_database(facts, settings),
        *judge_schema(facts),
        *judge_row_holders(holders),
        *judge_queues(queues, now),
    ]


async def _ask(url: str, timeout_seconds: float) -> MasterFacts | RedisError | TimeoutError:
    try:
        async with asyncio.timeout(_MASTER_SECONDS):
            return await read_master(url, timeout_seconds)
    except (RedisError, TimeoutError) as error:
        return error
