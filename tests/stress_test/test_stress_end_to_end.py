"""The stress test against a small service in memory: it passes the honest one, and names what each mutant does."""

import asyncio
import json
from pathlib import Path
from typing import ClassVar

import pytest
from aiohttp import web

from stress_test.errors import ServiceUnavailableError, UsageError
from stress_test.history import CLAIMED, SOLD_OUT
from stress_test.runner import Target, run_scenario
from stress_test.scenarios import SCENARIOS, Sizes
from tests.stress_test.honest_service import ADMIN_KEY, Claim, Coupon, HonestService, problem, serving, stress
from tests.stress_test.queue_service import QueueService


class OversellsByOne(HonestService):
    def in_stock(self, coupon: Coupon) -> bool:
        return coupon.remaining > -1


class UndersellsByOne(HonestService):
    def in_stock(self, coupon: Coupon) -> bool:
        return coupon.remaining > 1


class ForgetsAClaim(HonestService):
    def record(self, coupon: Coupon, name: str, user: str) -> Claim:
        claim = super().record(coupon, name, user)
        if len(coupon.claims) == coupon.amount:
            coupon.claims.remove(claim)
        return claim


class WritesAnotherUser(HonestService):
    def record(self, coupon: Coupon, name: str, user: str) -> Claim:
        claim = super().record(coupon, name, user)
        if len(coupon.claims) == 1:
            coupon.claims[0] = {**claim, "user_id": "a-stranger"}
        return claim


class NeverSeesADouble(HonestService):
    def held(self, coupon: Coupon, user: str) -> Claim | None:
        return None


class OnceOddly(HonestService):
    """Answers the third claim in its own way and the others honestly."""

    count = 0

    async def decide(self, request: web.Request, name: str, user: str) -> web.StreamResponse:
        self.count += 1
        if self.count == 3:
            return self.oddly(request)
        return await super().decide(request, name, user)

    def oddly(self, request: web.Request) -> web.StreamResponse:
        raise NotImplementedError


class BusyOnce(OnceOddly):
    def oddly(self, request: web.Request) -> web.StreamResponse:
        return problem(503, "lock-busy")


class NamelessRefusal(OnceOddly):
    def oddly(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"message": "no"}, status=409)


class HangsUp(OnceOddly):
    def oddly(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()


class HoldsTheFirst(HonestService):
    """Answers its first claim only after `HELD_SECONDS`."""

    HELD_SECONDS: ClassVar[float] = 0.3

    async def decide(self, request: web.Request, name: str, user: str) -> web.StreamResponse:
        if not self.coupons[name].claims:
            released = asyncio.Event()
            asyncio.get_running_loop().call_later(self.HELD_SECONDS, released.set)
            await released.wait()
        return await super().decide(request, name, user)


def a_target(*urls: str, admin_key: str = ADMIN_KEY, connections: int | None = None) -> Target:
    return Target(urls, admin_key, connections=connections)


async def test_the_default_run_passes_an_honest_service_and_shows_what_it_saw(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    async with serving(HonestService()) as [url]:
        ended = await stress("--json", str(file), URL=url, CLAIMSVC_ADMIN_KEY=ADMIN_KEY)
    assert (ended.status, ended.err) == (0, "")
    assert "flash-sale: 100 claims on coupon flash-sale-" in ended.out
    assert "PASS flash-sale" in ended.out
    assert "\x1b" not in ended.out
    assert "\r" not in ended.out
    result = json.loads(file.read_text())
    assert result.keys() == {
        "schema_version", "scenario", "passed", "parameters", "url", "urls", "started_at", "duration_seconds",
        "claims_per_second", "outcomes", "histogram", "violations", "rounds",
    }  # fmt: skip
    assert (result["passed"], result["violations"], result["url"]) == (True, [], url)
    assert {name: (row["count"], row["expected"]) for name, row in result["outcomes"].items()} == {
        CLAIMED: (5, 5),
        SOLD_OUT: (95, 95),
    }
    assert result["outcomes"][SOLD_OUT]["latency_seconds"].keys() == {"p50", "p95", "p99", "max"}
    assert sum(bucket["count"] for bucket in result["histogram"]) == 100
    [coupon] = result["rounds"][0]["read_back"]
    assert (coupon["remaining_amount"], coupon["claims"], len(coupon["claimed_by"])) == (0, 5, 5)
    assert "read back: claims recorded: 5, remaining_amount: 0, claimed_by: user-" in ended.out
    assert ADMIN_KEY not in file.read_text()


@pytest.mark.slow
async def test_every_scenario_passes_an_honest_service(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    async with serving(QueueService()) as [url]:
        ended = await stress("all", "--duration", "0.5", "--url", url, "--admin-key", ADMIN_KEY, "--json", str(file))
    assert (ended.status, ended.err) == (0, ""), ended.out
    result = json.loads(file.read_text())
    assert (result["scenario"], result["passed"]) == ("all", True)
    assert [run["scenario"] for run in result["runs"]] == list(SCENARIOS)


@pytest.mark.parametrize(
    ("mutant", "scenario", "named"),
    [
        (OversellsByOne, "flash-sale", ["exact-outcomes", "oversold: 6 claims were answered 201 on a stock of 5"]),
        (UndersellsByOne, "flash-sale", ["exact-outcomes", "nothing-undersold", "sold-out-was-true"]),
        (ForgetsAClaim, "flash-sale", ["nothing-lost", "stock-adds-up"]),
        (WritesAnotherUser, "flash-sale", ["nothing-lost", "no-phantoms", "a-stranger"]),
        (BusyOnce, "flash-sale", ["exact-outcomes", "1 x 503 lock-busy"]),
        (NamelessRefusal, "flash-sale", ["exact-outcomes", "only-contract-answers", "1 x 409"]),
        (HangsUp, "flash-sale", ["exact-outcomes", "1 x no-answer:disconnected"]),
        (NeverSeesADouble, "double-dip", ["exact-outcomes", "one-success-per-user", "one-claim-per-user"]),
        (OversellsByOne, "many-coupons", ["no-more-successes-than-stock", "stock-adds-up"]),
        (BusyOnce, "sustained", ["definite-answers", "claims without a definite answer: 1, allowed: 0"]),
    ],
)
async def test_what_a_mutant_does_is_named_and_fails_the_run(
    mutant: type[HonestService], scenario: str, named: list[str]
) -> None:
    smaller = {"sustained": ["--duration", "0.1"], "many-coupons": ["--coupons", "2", "--claims", "10"]}
    async with serving(mutant()) as [url]:
        ended = await stress(scenario, *smaller.get(scenario, []), "--quiet", "--url", url, "--admin-key", ADMIN_KEY)
    assert (ended.status, ended.err) == (1, "")
    assert f"FAIL {scenario}" in ended.out
    assert [words for words in named if words not in ended.out] == []


@pytest.mark.parametrize("mutant", [BusyOnce, HangsUp])
async def test_a_sustained_run_can_be_told_to_tolerate_unknown_answers(mutant: type[HonestService]) -> None:
    async with serving(mutant()) as [url]:
        target = Target((url,), ADMIN_KEY, max_unknown=1)
        run = await run_scenario(SCENARIOS["sustained"], Sizes(rate=500.0, duration_seconds=0.1), target)
    assert run.violations == ()
    assert "claims without a definite answer: 1; of these recorded: 0" in run.rounds[0].notes


async def test_every_claim_has_a_connection_that_was_open_before() -> None:
    service = HonestService()
    async with serving(service) as [url]:
        await run_scenario(SCENARIOS["flash-sale"], Sizes(claims=100, quota=5), a_target(url))
    assert len(set(service.claim_peers)) == len(service.claim_peers) == 100
    assert set(service.claim_peers) == set(service.warm_peers)


async def test_claims_are_dealt_to_the_instances_in_turn() -> None:
    service = HonestService()
    async with serving(service, instances=2) as urls:
        run = await run_scenario(SCENARIOS["flash-sale"], Sizes(claims=10, quota=5), a_target(*urls))
    assert run.violations == ()
    ports = [int(url.rpartition(":")[2]) for url in urls]
    assert [service.claim_ports.count(port) for port in ports] == [5, 5]


async def test_more_winners_than_claimed_by_shows_are_read_back_page_by_page() -> None:
    async with serving(HonestService()) as [url]:
        target = a_target(url, connections=20)
        run = await run_scenario(SCENARIOS["flash-sale"], Sizes(claims=1050, quota=1040), target)
    assert run.violations == ()
    assert run.rounds[0].histories[0].counts() == {CLAIMED: 1040, SOLD_OUT: 10}


async def test_rounds_use_new_coupons() -> None:
    service = HonestService()
    async with serving(service) as [url]:
        target = Target((url,), ADMIN_KEY, rounds=3)
        run = await run_scenario(SCENARIOS["double-dip"], Sizes(claims=4, quota=5), target)
    assert (len(run.rounds), len(service.coupons), run.violations) == (3, 3, ())


async def test_a_stall_shows_in_the_latency_of_every_claim_that_it_delayed() -> None:
    """One connection: all claims queue behind the first, and each is timed from the moment when it was due."""
    async with serving(HoldsTheFirst()) as [url]:
        sizes = Sizes(rate=100.0, duration_seconds=0.2)
        run = await run_scenario(SCENARIOS["sustained"], sizes, a_target(url, connections=1))
    due = [number / sizes.rate for number in range(20)]
    attempts = run.rounds[0].histories[0].attempts
    # Timers of the event loop may be early by a few milliseconds.
    tolerance = 0.02
    assert all(
        attempt.latency_seconds >= HoldsTheFirst.HELD_SECONDS - moment - tolerance
        for attempt, moment in zip(attempts, due, strict=True)
    )


async def test_without_an_admin_key_one_sentence_says_what_to_do() -> None:
    ended = await stress("--url", "http://127.0.0.1:1")
    assert (ended.status, ended.out) == (2, "")
    assert "set CLAIMSVC_ADMIN_KEY or pass --admin-key" in ended.err
    assert ended.err.count("\n") == 1


async def test_a_refused_admin_key_is_a_usage_error() -> None:
    async with serving(HonestService()) as [url]:
        with pytest.raises(UsageError, match="refused the admin key"):
            await run_scenario(SCENARIOS["flash-sale"], Sizes(claims=1, quota=1), a_target(url, admin_key="x"))


async def test_a_service_that_is_not_there_is_unavailable(unused_tcp_port: int) -> None:
    ended = await stress("stampede", "--url", f"http://127.0.0.1:{unused_tcp_port}", "--admin-key", "x")
    assert (ended.status, ended.out) == (69, "")
    assert "start the service, or pass its URL with --url" in ended.err
    assert ended.err.count("\n") == 1


async def test_something_else_on_the_port_is_unavailable() -> None:
    runner = web.AppRunner(web.Application(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        with pytest.raises(ServiceUnavailableError, match="answered 404 instead of 201"):
            await run_scenario(SCENARIOS["flash-sale"], Sizes(claims=1, quota=1), a_target(f"http://{host}:{port}"))
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8080", "http://", "http://host:port"])
async def test_a_url_of_no_service_is_a_usage_error(url: str) -> None:
    ended = await stress("--url", url, "--admin-key", "x")
    assert ended.status == 2
    assert "pass --url as http://host:port" in ended.err


async def test_the_help_names_the_scenarios_and_the_exit_statuses() -> None:
    ended = await stress("--help")
    assert ended.status == 0
    assert [name for name in (*SCENARIOS, "all", "Exit status", "69") if name not in ended.out] == []
