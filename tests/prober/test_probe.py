"""`claimsvc probe` against a real service: what it finds, leaves behind, and tells Prometheus."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from claimsvc.bootstrap import application
from claimsvc.client import ClaimClient, Coupon
from claimsvc.config import Settings
from claimsvc.embedded import free_port
from claimsvc.prober import COUPON, Prober, Verdict
from tests.support.admin import ADMIN_DIGEST, ADMIN_KEY
from tests.support.serving import served
from tests.support.waiting import until


@pytest.fixture
async def url(database_url: str, redis_urls: tuple[str, ...]) -> AsyncIterator[str]:
    settings = Settings(database_url=database_url, redis_urls=redis_urls, admin_keys=(ADMIN_DIGEST,))
    async with application(settings) as app, served(app) as port:
        yield f"http://127.0.0.1:{port}"


async def coupon_of(url: str) -> Coupon:
    async with ClaimClient(url) as client:
        coupon = await client.coupon(COUPON)
    assert isinstance(coupon, Coupon)
    return coupon


def plain(database_url: str) -> str:
    return re.sub(r"^postgresql\+\w+", "postgresql", database_url)


async def command(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a `claimsvc probe` of its own."""
    run = [sys.executable, "-m", "claimsvc", "probe", *arguments]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLAIMSVC_")}
    done = await asyncio.to_thread(
        subprocess.run, run, capture_output=True, text=True, check=False, env={**inherited, **environment}
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_probe_makes_a_claim_and_returns_it_so_the_coupon_never_runs_out(url: str, database_url: str) -> None:
    prober = Prober(url, key=ADMIN_KEY)
    probes = [await prober.probe() for _ in range(15)]  # more than one user may make claims of a coupon
    assert {probe.verdict for probe in probes} == {Verdict.CLAIMED}, probes
    assert all(0 < probe.seconds < 5 for probe in probes)
    coupon = await coupon_of(url)
    assert coupon.remaining_amount == coupon.amount
    with psycopg.connect(plain(database_url)) as database:
        states = database.execute("SELECT state, count(*) FROM user_claims GROUP BY state").fetchall()
    assert states == [("cancelled", 15)]


async def test_two_probers_make_one_coupon(url: str) -> None:
    probes = await asyncio.gather(*(Prober(url, key=ADMIN_KEY).probe() for _ in range(6)))
    assert {probe.verdict for probe in probes} == {Verdict.CLAIMED}


async def test_exit_status_and_words_say_whether_claiming_works(url: str, database_url: str) -> None:
    status, output = await command(url)
    assert (status, output.split()[0]) == (78, "refused")
    assert f"claimsvc coupon create {COUPON} --amount" in output
    status, output = await command(url, CLAIMSVC_PROBE_KEY="not-a-key")
    assert (status, output.split()[0]) == (78, "refused")
    assert "the key is not accepted" in output
    status, output = await command(url, CLAIMSVC_PROBE_KEY=ADMIN_KEY)
    assert (status, output.split()[0]) == (0, "claimed")
    assert (await command(url))[0] == 0, "once there is a coupon, and claiming is open"
    with psycopg.connect(plain(database_url)) as outsider:
        outsider.execute("SELECT FROM coupons WHERE name = %s FOR UPDATE", [COUPON])
        status, output = await command(url, "--timeout", "1")
    assert (status, output.split()[0]) == (1, "failed")


async def test_a_service_that_is_not_there_or_not_ready_fails() -> None:
    status, output = await command(f"http://127.0.0.1:{free_port()}")
    assert (status, output.split()[0]) == (1, "failed")
    assert "Cannot connect" in output
    async with silent() as port:
        status, output = await command(f"http://127.0.0.1:{port}", "--timeout", "0.5")
    assert (status, output.split()[0]) == (1, "failed")
    async with balancer_without_instances() as port:
        status, output = await command(f"http://127.0.0.1:{port}")
    assert (status, output.split()[0]) == (1, "failed")
    assert "No instance is ready" in output


@pytest.mark.parametrize("arguments", ["ftp://host", "http://host --listen 0", "http://host --every 0"])
async def test_wrong_arguments_are_refused(arguments: str) -> None:
    assert (await command(*arguments.split()))[0] == 2


async def test_repeated_probes_tell_prometheus_and_whoever_reads_the_output(url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "claimsvc", "probe", url, "--every", "1", "--listen", "0"),
        env={**os.environ, "CLAIMSVC_PROBE_KEY": ADMIN_KEY},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        page = (await process.stdout.readline()).decode().split()[-1]

        async def figure(metric: str, labels: str = "") -> float:
            text = await asyncio.to_thread(lambda: urllib.request.urlopen(page, timeout=5).read().decode())
            labels += f'target="{url}"'
            found = re.search(rf"^{metric}\{{{re.escape(labels)}\}} (\S+)$", text, re.MULTILINE)
            return float(found[1]) if found else -1.0

        async def has_probed_twice() -> bool:
            return await figure("claimsvc_probes_total", 'result="claimed",') >= 2

        await until(has_probed_twice, "two probes were made")
        assert await figure("claimsvc_probe_success") == 1
        assert 0 < await figure("claimsvc_probe_duration_seconds") < 5
        process.send_signal(signal.SIGTERM)
        lines = (await process.stdout.read()).decode().splitlines()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert len(lines) == 1, "nothing has changed after the first probe"
    assert f"claimed  {COUPON} was claimed and returned" in lines[0]


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """Takes connections, and answers nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def balancer_without_instances() -> AsyncIterator[int]:
    """Answers as the load balancer of Compose does while no instance is ready."""
    problem = {
        "type": "/problems/unavailable",
        "title": "Unavailable",
        "status": 503,
        "detail": "No instance is ready.",
    }
    body = json.dumps(problem).encode()
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
