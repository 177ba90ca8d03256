"""Masters that fail, few or most of them: row 11 of the fault table."""

import asyncio
import random
from dataclasses import dataclass

from tests.faults.scenario import Anywhere, Context, Row, register, scenario
from tests.faults.trial import Trial
from tests.faults.windows import (
    MINORITY_P99_FACTOR,
    P99_SLACK_SECONDS,
    RECOVERED_WITHIN_SECONDS,
    UNAVAILABLE_WITHIN_SECONDS,
    expect_answers_within,
    expect_recovery,
    now,
    window,
)
from tests.support.injectors.masters import (
    FORGETFUL,
    HUNG,
    OUT_OF_MEMORY,
    READ_ONLY,
    REFUSED,
    TOO_FEW_REPLICAS,
    MasterFault,
    answered,
    run_id,
    takes_writes,
)
from tests.support.load import Plan

_PLENTY = 10_000_000
_CLIENTS = 24


async def _inflict(trial: Trial, fault: MasterFault, count: int) -> None:
    """Do it to so many masters, and make sure that it is felt."""
    victims = trial.cluster.masters[:count]
    before = [await asyncio.to_thread(run_id, master) for master in victims]
    for master in victims:
        await asyncio.to_thread(fault.inflict, master)
    for master, previous in zip(victims, before, strict=True):
        if fault is FORGETFUL:
            trial.fired(await asyncio.to_thread(run_id, master) != previous)
        else:
            trial.fired(not await asyncio.to_thread(takes_writes, master))


async def _heal(trial: Trial, fault: MasterFault, count: int) -> None:
    for master in trial.cluster.masters[:count]:
        if fault.error:
            # More than our own probe: the service has met it as well.
            times = await asyncio.to_thread(answered, master, fault.error)
            trial.expect(times > 1, f"{master.name} never refused the service a write")
        await asyncio.to_thread(fault.heal, master)


@dataclass(slots=True)
class _Failing(Anywhere):
    """Some masters fail in one way."""

    name: str
    what: MasterFault
    quick: bool = False
    fault: str = "11"


class _Minority(_Failing):
    """One of three masters fails: nobody is to see it, neither while it lasts nor when it is over."""

    async def run(self, context: Context, rng: random.Random) -> Row:
        seconds = 12.0 if context.full else 4.0
        async with context.trial(self, rng, instances=2, own_servers=True) as trial:
            cluster = trial.cluster
            hot = await cluster.create_coupon(_PLENTY)
            others = [await cluster.create_coupon(_PLENTY, each) for each in ("redlock", "row_lock", "counter")]
            async with trial.load(Plan([hot, *others], [3, 1, 1, 1], clients=_CLIENTS)):
                await trial.acknowledged(200)
                healthy_from = now()
                await asyncio.sleep(seconds)
                fault_from = now()
                await _inflict(trial, self.what, 1)
                await asyncio.sleep(seconds)
                healed = now()
                await _heal(trial, self.what, 1)
                trial.healed()
                await asyncio.sleep(seconds / 2)
                await trial.recovered()
            self._judge(trial, healthy_from, fault_from, healed, judges_latency=context.alone)
        return trial.row

    def _judge(self, trial: Trial, healthy_from: int, fault_from: int, healed: int, *, judges_latency: bool) -> None:
        healthy, during, after = (
            window(trial, healthy_from, fault_from),
            window(trial, fault_from, healed),
            window(trial, healed),
        )
        for text, seen in (("while it lasted", during), ("after healing", after)):
            trial.expect(not seen.count(0, 500, 503), f"a minority was seen {text}: {seen.problems()}")
        base, p99 = healthy.p99_seconds(), during.p99_seconds()
        trial.notes.append(f"p99 {p99 * 1000:.0f} ms, {p99 / base:.2f} x the healthy {base * 1000:.0f} ms")
        trial.notes.append(f"slowest {during.slowest_seconds():.2f} s, after healing {after.slowest_seconds():.2f} s")
        trial.expect(
            not judges_latency or p99 <= MINORITY_P99_FACTOR * base + P99_SLACK_SECONDS,
            f"the p99 was {p99 * 1000:.0f} ms, and {base * 1000:.0f} ms before",
        )


# Who holds the lock may keep it for as long as it is valid, if nobody asks for it where a master still answers. It is
# valid for longer than recovery may take, so that a lock which nobody gives back is noticed after healing.
_LOCK_TTL_SECONDS = RECOVERED_WITHIN_SECONDS + 3.0


class _Majority(_Failing):
    """Two of three masters fail: 503 for what needs the lock, soon and with `Retry-After`; the rest goes on."""

    async def run(self, context: Context, rng: random.Random) -> Row:
        seconds = 6.0 if context.full else 2.0
        settings = {"CLAIMSVC_LOCK_TTL_SECONDS": f"{_LOCK_TTL_SECONDS}"}
        async with context.trial(self, rng, instances=2, own_servers=True, settings=settings) as trial:
            cluster = trial.cluster
            hot = await cluster.create_coupon(_PLENTY)
            others = [
                await cluster.create_coupon(_PLENTY, each) for each in ("row_lock", "counter", "counter", "counter")
            ]
            # Loads of their own, because in one all clients would soon be asking again for what cannot be had.
            async with (
                trial.load(Plan([hot], clients=_CLIENTS)),
                trial.load(Plan(others, clients=_CLIENTS, per_second=400)),
            ):
                await trial.acknowledged(200)
                begun = now()
                await _inflict(trial, self.what, 2)
                # Claims under a lock that was held at that moment may still succeed, for as long as it is held.
                await asyncio.sleep(UNAVAILABLE_WITHIN_SECONDS + _LOCK_TTL_SECONDS)
                fault_from = now()
                await asyncio.sleep(seconds)
                until = now()
                await _heal(trial, self.what, 2)
                trial.healed()
                healed = now()
                await self._until_claimed(trial, healed, hot)
            during = window(trial, fault_from, until)
            locked, unlocked = during.of(hot), during.of(*others)
            expect_answers_within(trial, window(trial, begun, until), UNAVAILABLE_WITHIN_SECONDS, "without a majority")
            trial.expect(locked.count(503) > 0, f"no claim under the lock was told 503: {locked.problems()}")
            trial.expect(not locked.count(201), f"claims succeeded under a lock that cannot be: {locked.problems()}")
            for name in others:
                seen = unlocked.of(name)
                trial.expect(
                    seen.count(201) > 0 and not seen.count(503, 500), f"{name} did not go on: {seen.problems()}"
                )
            slowest = window(trial, begun, until).of(hot).slowest_seconds()
            trial.notes.append(f"slowest answer {slowest:.2f} s")
            expect_recovery(trial, healed, hot)
        return trial.row

    async def _until_claimed(self, trial: Trial, healed: int, coupon: str) -> None:
        """Go on until the coupon under the lock is claimed again, for longer than that may take."""
        for _ in range(300):
            if window(trial, healed).of(coupon).count(201):
                return
            await asyncio.sleep(0.1)  # it looks through the whole history


for _failing in (
    _Minority("1 of 3 masters refuses", REFUSED, quick=True),
    _Minority("1 of 3 masters hangs", HUNG, quick=True),
    _Minority("1 of 3 masters restarts without its data", FORGETFUL),
    _Minority("1 of 3 masters is out of memory", OUT_OF_MEMORY),
    _Minority("1 of 3 masters is read-only", READ_ONLY),
    _Minority("1 of 3 masters lacks replicas", TOO_FEW_REPLICAS),
    _Majority("2 of 3 masters refuse", REFUSED),
    _Majority("2 of 3 masters hang", HUNG, quick=True),
    _Majority("2 of 3 masters are out of memory", OUT_OF_MEMORY),
    _Majority("2 of 3 masters are read-only", READ_ONLY),
    _Majority("2 of 3 masters lack replicas", TOO_FEW_REPLICAS),
):
    register(_failing)


@scenario
class MajorityForgetful(Anywhere):
    """Two of three masters restart empty: a lock that was held is free, so two may hold it."""

    fault, name, quick = "11", "2 of 3 masters restart without their data", False

    async def run(self, context: Context, rng: random.Random) -> Row:
        async with context.trial(self, rng, instances=3, own_servers=True) as trial:
            cluster = trial.cluster
            hot = await cluster.create_coupon(_PLENTY)
            scarce = [await cluster.create_coupon(500, each) for each in ("redlock", "counter")]
            async with trial.load(Plan([hot, *scarce], [2, 1, 1], clients=_CLIENTS)):
                for _ in range(6 if context.full else 2):
                    await trial.acknowledged(rng.randrange(50, 400))
                    await _inflict(trial, FORGETFUL, 2)
                trial.healed()
                await trial.recovered()
        return trial.row
