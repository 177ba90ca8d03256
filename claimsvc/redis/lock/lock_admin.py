"""`ports.LockAdmin`: lists the locks that are held, read from the masters, and releases one by force.

Reading takes no locks and changes nothing. It works in small steps (SCAN, then a script for a hundred names), so that
no master is blocked for long.

A forced release deletes exactly the lock that was seen and audited, by its token and with the script of an ordinary
release: a waiting instance is woken, and a lock that changed hands meanwhile stays with its new holder. The old holder
continues until its own release, which reports that the lock was lost. This is safe, because PostgreSQL decides its
claims.
"""

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from redis.exceptions import RedisError

from claimsvc.domain import (
    COUPON_NAME_PATTERN,
    AuditEntry,
    HeldLock,
    LockNotHeld,
    LockReleased,
    LocksSeen,
    WaitingInstance,
)
from claimsvc.ports import AuditLog
from claimsvc.redis.lock.acquisition import no_majority, release
from claimsvc.redis.lock.identity import KEY_PREFIX, instance_of, key_of
from claimsvc.redis.masters import Master
from claimsvc.redis.scripts import Script

_log = structlog.get_logger("claimsvc.lock")
_look = Script("lock_look.lua")

_NAME = re.compile(COUPON_NAME_PATTERN, re.ASCII)
# Keys for one SCAN, and names for one call of the script: both take some tenths of a millisecond.
_SCAN_COUNT = 500
_LOOK_COUNT = 100
# Limits of a listing: locks, waiting instances for each, and the duration of the scan.
_MOST_LOCKS = 1000
_MOST_WAITING = 100
_SCAN_SECONDS = 2.0
# A hot coupon's lock changes hands every few milliseconds, and the masters are not read at the same instant. If no
# majority reports one holder, they are read again.
_LOOKS = 3


@dataclass(frozen=True, slots=True)
class _Seen:
    """The state of one lock on one master. `waiting` is seconds by instance."""

    master: str
    token: str
    ttl_seconds: float
    turn: str
    waiting: Mapping[str, float]


class LockAdmin:
    """`ports.LockAdmin` on the masters.

    Args:
        masters: all masters of the lock.
        audit: records a forced release before it is done.
        ttl_seconds: the TTL of a lock. How long a lock has been held is computed from it.
    """

    def __init__(self, masters: Sequence[Master], audit: AuditLog, *, ttl_seconds: float) -> None:
        self._masters = tuple(masters)
        self._majority = len(masters) // 2 + 1
        self._audit = audit
        self._ttl_seconds = ttl_seconds

    async def held(self) -> LocksSeen:
        until = time.monotonic() + _SCAN_SECONDS
        scans = await self._ask({master: _scan(master, until) for master in self._masters})
        names = sorted(set().union(*(found for found, _ in scans.values())))
        locks: list[HeldLock] = []
        for first in range(0, min(len(names), _MOST_LOCKS), _LOOK_COUNT):
            locks += [lock for lock, _ in await self._look_at(names[first : min(first + _LOOK_COUNT, _MOST_LOCKS)])]
        return LocksSeen(
            masters=tuple(master.name for master in self._masters),
            down=tuple(master.name for master in self._masters if master not in scans),
            locks=tuple(locks),
            is_complete=len(names) <= _MOST_LOCKS and all(complete for _, complete in scans.values()),
            troubles={each.name: str(each.trouble) for each in self._masters if each.trouble is not None},
        )

    async def look(self, coupon_name: str) -> list[HeldLock]:
        return [lock for lock, _ in await self._look_at([coupon_name])]

    async def release(
        self, coupon_name: str, *, actor: str, reason: str, request_id: str | None = None
    ) -> LockReleased | LockNotHeld:
        looked_since = time.monotonic()
        found = await self._look_at([coupon_name])
        if not found:
            return LockNotHeld()
        await self._audit.record(
            AuditEntry(
                actor=actor,
                action="lock.release",
                subject_type="coupon",
                subject=coupon_name,
                reason=reason,
                request_id=request_id,
                details={"holders": [{"instance": lock.holder, "ttl_seconds": lock.ttl_seconds} for lock, _ in found]},
            )
        )
        freed: set[str] = set()
        reached: set[str] = set()
        woke_another = False
        for lock, token in found:
            answers = await self._ask(
                {master: self._give_back(master, lock, token, looked_since) for master in self._masters}
            )
            reached |= {master.name for master in answers}
            freed |= {master.name for master, [given_back] in answers.items() if given_back}
            woke_another |= any(given_back == 2 for [given_back] in answers.values())
        if not freed:
            return LockNotHeld()
        holders = tuple(dict.fromkeys(lock.holder for lock, _ in found))
        _log.warning(
            "lock released by force",
            coupon=coupon_name,
            holders=holders,
            actor=actor,
            reason=reason,
            masters=len(freed),
        )
        return LockReleased(
            coupon_name=coupon_name,
            holders=holders,
            released_on=tuple(master.name for master in self._masters if master.name in freed),
            not_reached=tuple(master.name for master in self._masters if master.name not in reached),
            woke_another=woke_another,
        )

    async def _give_back(self, master: Master, lock: HeldLock, token: str, looked_since: float) -> list[int]:
        # Counted from before the read, so that a slow audit cannot make the lock seem younger than a master's outage.
        taken_since = looked_since - lock.held_seconds
        keys = [key_of(lock.coupon_name)]
        return await release(master, keys, token, taken_since=taken_since, ttl_seconds=self._ttl_seconds)

    async def _look_at(self, names: Sequence[str]) -> list[tuple[HeldLock, str]]:
        """Return the held locks of these names with their tokens, in the order of the names."""
        found: dict[str, list[tuple[HeldLock, str]]] = {}
        unclear = list(names)
        for _ in range(_LOOKS):
            found |= await self._look_once(unclear)
            unclear = [name for name in unclear if not any(lock.is_held for lock, _ in found[name])]
            unclear = [name for name in unclear if found[name]]
            if not unclear:
                break
        return [each for name in names for each in found[name]]

    async def _look_once(self, names: Sequence[str]) -> dict[str, list[tuple[HeldLock, str]]]:
        keys = [key_of(name) for name in names]
        answers = await self._ask({master: _look(master, keys, _MOST_WAITING) for master in self._masters})
        seen: dict[str, list[_Seen]] = {name: [] for name in names}
        for master, (clock, *locks) in answers.items():
            for name, lock in zip(names, locks, strict=True):
                seen[name].append(_seen(master.name, int(clock), *lock))
        return {name: self._holders(name, each) for name, each in seen.items()}

    def _holders(self, name: str, seen: Sequence[_Seen]) -> list[tuple[HeldLock, str]]:
        """Return the holders of a lock: usually one, several if the masters disagree."""
        by_token: dict[str, dict[str, float]] = defaultdict(dict)
        waiting: dict[str, float] = {}
        for each in seen:
            if each.token:
                by_token[each.token][each.master] = each.ttl_seconds
            for instance, seconds in each.waiting.items():
                waiting[instance] = max(seconds, waiting.get(instance, 0.0))
        line = tuple(WaitingInstance(*each) for each in sorted(waiting.items(), key=lambda each: -each[1]))
        return [
            (
                HeldLock(
                    coupon_name=name,
                    holder=instance_of(token),
                    is_held=len(ttl_seconds) >= self._majority,
                    held_seconds=max(0.0, self._ttl_seconds - max(ttl_seconds.values())),
                    ttl_seconds=ttl_seconds,
                    turn=next((each.turn for each in seen if each.turn), ""),
                    waiting=line,
                ),
                token,
            )
            for token, ttl_seconds in by_token.items()
        ]

    async def _ask(self, questions: Mapping[Master, Any]) -> dict[Master, Any]:
        """Return the answers of the masters that answered.

        Raises:
            UnavailableError: a majority of the masters did not answer.
        """
        results = await asyncio.gather(*questions.values(), return_exceptions=True)
        answers: dict[Master, Any] = {}
        for master, result in zip(questions, results, strict=True):
            if not isinstance(result, BaseException):
                answers[master] = result
            elif not isinstance(result, RedisError):
                raise result
        if len(answers) < self._majority:
            raise no_majority()
        return answers


async def _scan(master: Master, until: float) -> tuple[set[str], bool]:
    """Return the names of the locks on a master, and whether the list is complete.

    Args:
        until: when to stop (monotonic seconds).
    """
    names: set[str] = set()
    cursor = 0
    while True:
        cursor, keys = await master.scan(cursor, match=f"{KEY_PREFIX}*", count=_SCAN_COUNT)
        found = (key if isinstance(key, str) else key.decode("utf-8", "replace") for key in keys)
        names.update(name for key in found if _NAME.fullmatch(name := key.removeprefix(KEY_PREFIX)))
        if not cursor:
            return names, True
        if len(names) > _MOST_LOCKS or time.monotonic() > until:
            return names, False


def _seen(
    master: str, clock: int, token: bytes | None, ttl_milliseconds: int, turn: bytes | None, line: Sequence[bytes]
) -> _Seen:
    places = zip(line[::2], line[1::2], strict=True)
    return _Seen(
        master=master,
        token=(token or b"").decode("utf-8", "replace"),
        ttl_seconds=max(0, ttl_milliseconds) / 1000,
        turn=(turn or b"").decode("utf-8", "replace"),
        waiting={
            instance.decode("utf-8", "replace"): max(0.0, (clock - float(since)) / 1e6) for instance, since in places
        },
    )
