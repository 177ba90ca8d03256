"""Each injector does to a real server what it says, and undoes it."""

import asyncio
import socket
import time
from collections.abc import Iterator

import psycopg
import pytest

from claimsvc import bootstrap
from claimsvc.embedded import EmbeddedServices, embedded_services, temporary_state_dir
from tests.support.injectors import clock, disk, masters, namespaces, postgres, standby
from tests.support.proxy import proxy_to
from tests.support.waiting import block_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("injectors")]


@pytest.fixture(scope="module")
def own() -> Iterator[EmbeddedServices]:
    """Servers that a test may break, as long as it mends them."""
    with temporary_state_dir() as state_dir, embedded_services(state_dir, masters=1) as running:
        bootstrap.migrate(running.database_url)
        yield running


def _coupon(url: str, *names: str) -> None:
    with postgres.connect(url) as session:
        for name in names:
            session.execute("INSERT INTO coupons (name, amount, remaining_amount) VALUES (%s, 9, 9)", [name])


@pytest.mark.parametrize("fault", masters.LASTING_FAULTS, ids=lambda fault: fault.name)
def test_a_master_takes_no_writes_until_it_is_healed(own: EmbeddedServices, fault: masters.MasterFault) -> None:
    [master] = own.masters
    assert masters.takes_writes(master)
    fault.inflict(master)
    try:
        assert not masters.takes_writes(master)
        if fault.error:
            assert masters.answered(master, fault.error) > 0
    finally:
        fault.heal(master)
    assert masters.takes_writes(master)


def test_a_forgetful_master_comes_back_empty(own: EmbeddedServices) -> None:
    [master] = own.masters
    with masters.client_of(master) as client:
        client.set("claim:coupon:spring", "token")
    before = masters.run_id(master)
    masters.FORGETFUL.inflict(master)
    assert masters.run_id(master) != before
    with masters.client_of(master) as client:
        assert client.dbsize() == 0


def test_a_clock_that_jumps_forward_expires_keys_and_backward_keeps_them(own: EmbeddedServices) -> None:
    if reason := clock.why_not():
        pytest.skip(reason)
    [master] = own.masters
    with clock.jumping_clock(master, own.state_dir) as its_clock, masters.client_of(master) as client:
        client.set("lock", "token", px=20_000)
        its_clock.jump_to(+60)
        block_until(lambda: client.get("lock") is None, "the key has expired")
        assert clock.time_of(master) - time.time() == pytest.approx(60, abs=5)
        client.set("lock", "token", px=1)
        its_clock.jump_to(-60)
        time.sleep(0.05)
        assert client.get("lock") == "token"
        assert clock.time_of(master) - time.time() == pytest.approx(-60, abs=5)
    assert clock.time_of(master) == pytest.approx(time.time(), abs=5)


def test_the_clock_of_postgres_jumps_for_sessions_that_are_open(own: EmbeddedServices) -> None:
    if reason := clock.why_not():
        pytest.skip(reason)
    assert own.postgres is not None
    query = "SELECT extract(epoch FROM clock_timestamp())::bigint"
    with clock.jumping_clock_of_postgres(own.postgres, own.state_dir) as its_clock:
        with postgres.connect(own.postgres.url) as session:
            for seconds in (60, -60, 0):
                its_clock.jump_to(seconds)
                row = session.execute(query.encode()).fetchone()
                assert row is not None
                assert int(str(row[0])) - time.time() == pytest.approx(seconds, abs=5)
        its_clock.jump_to(60)
    assert postgres.number(own.postgres.url, query) == pytest.approx(time.time(), abs=5)


async def test_a_cut_wire_swallows_packets_and_a_mended_one_delivers_them() -> None:
    if reason := namespaces.why_not():
        pytest.skip(reason)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    with namespaces.wires(2) as net:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, proxy_to(*server.sockets[0].getsockname(), listener=net.listener(0)) as proxy:
            with net.near.entered():
                client = socket.socket()
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, (net.addresses[0], proxy.port))
            await loop.sock_sendall(client, b"before")
            assert await loop.sock_recv(client, 100) == b"before"
            net.cut(0)
            assert not net.has_carrier(0)
            assert net.has_carrier(1)
            await loop.sock_sendall(client, b"meanwhile")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(client, 100), 0.5)
            net.mend(0)
            assert await asyncio.wait_for(loop.sock_recv(client, 100), 10) == b"meanwhile"
            client.close()


def test_transactions_are_terminated_and_idle_sessions_left_alone(own: EmbeddedServices) -> None:
    url = own.database_url
    with (
        psycopg.connect(url, application_name="claimsvc", autocommit=True) as idle,
        psycopg.connect(url, application_name="claimsvc") as busy,
        postgres.connect(url) as ours,
    ):
        busy.execute("SELECT 1")
        assert postgres.terminate_transactions(ours) == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            busy.execute("SELECT 1")
        idle.execute("SELECT 1")


def test_an_immediate_stop_ends_sessions_and_keeps_what_was_committed(own: EmbeddedServices) -> None:
    assert own.postgres is not None
    _coupon(own.database_url, "kept")
    with postgres.connect(own.database_url) as session:
        postgres.stop_immediately(own.postgres)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    own.postgres.start()
    assert postgres.number(own.database_url, "SELECT count(*) FROM coupons WHERE name = 'kept'") == 1


def test_no_connection_is_left_while_every_one_is_taken(own: EmbeddedServices) -> None:
    with postgres.every_connection_taken(own.database_url) as held:
        assert held() > 150
        with pytest.raises(psycopg.OperationalError, match="too many clients"):
            postgres.connect(own.database_url)
    block_until(lambda: _can_connect(own.database_url), "connections are free again")


def _can_connect(url: str) -> bool:
    try:
        postgres.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


async def test_a_deadlock_ends_the_services_transaction(own: EmbeddedServices) -> None:
    url = own.database_url
    _coupon(url, "lock-a", "lock-b")
    before = postgres.deadlocks(url)
    ours = asyncio.create_task(asyncio.to_thread(postgres.deadlock, url, "lock-a", "lock-b"))
    async with await psycopg.AsyncConnection.connect(url, application_name="claimsvc") as service:
        with pytest.raises(psycopg.errors.DeadlockDetected):
            while not ours.done():
                await service.execute("SELECT FROM coupons WHERE name LIKE 'lock-_' ORDER BY name FOR NO KEY UPDATE")
                await service.rollback()
    await ours
    await asyncio.to_thread(block_until, lambda: postgres.deadlocks(url) > before, "the deadlock is counted")


def test_a_full_disk_refuses_claims_until_there_is_room(own: EmbeddedServices) -> None:
    if reason := disk.why_not():
        pytest.skip(reason)
    url = own.database_url
    _coupon(url, "disk")
    many = """
        INSERT INTO user_claims
        SELECT gen_random_uuid(), 'disk', %s::text || n, 'active', now() FROM generate_series(1, 10000) AS n
    """
    with disk.small_disk(own) as small, disk.claims_on(small, url), postgres.connect(url) as session:
        small.fill()
        assert small.is_full()
        with pytest.raises(psycopg.errors.DiskFull):
            session.execute(many, ["a"])
        small.clear()
        session.execute(many, ["b"])


def test_a_promoted_standby_has_every_commit_that_was_answered(own: EmbeddedServices) -> None:
    assert own.postgres is not None
    with temporary_state_dir() as folder, standby.standby_of(own, folder / "standby") as second:
        _coupon(own.database_url, "replicated")
        own.postgres.kill()
        standby.promote(second)
        _coupon(second.url, "after")
        count = "SELECT count(*) FROM coupons WHERE name IN ('replicated', 'after')"
        assert postgres.number(second.url, count) == 2
        own.postgres.start()
