"""The bench itself: that it counts what happened, and says what it counted."""

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import orjson
import psycopg
import pytest

from claimsvc.domain import TokenUser
from claimsvc.embedded import temporary_state_dir
from claimsvc.identity.tokens import open_tokens
from tests.bench.contestants import CODES, FLOOR, LOAD_GENERATOR, PLAIN, TOKEN_SEEN, Contestant, Phase, Server, phases
from tests.bench.cpu import cpu_seconds
from tests.bench.figures import Figure, judged_figures
from tests.bench.growth import clone_coupon, fill_claims
from tests.bench.load import Load
from tests.bench.picture import draw
from tests.bench.plan import Plan, Result
from tests.bench.rounds import Series
from tests.bench.tokens import AUDIENCE, ISSUER, new_key

pytestmark = pytest.mark.slow

_CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"
_SOLD_OUT = b'HTTP/1.1 409 Conflict\r\ncontent-length: 30\r\n\r\n{"type": "/problems/sold-out"}'
_MANY_TIMES = 50
_REFUSED = "503s and other refusals with stock left, in all"
_FIGURES = 27


@dataclass
class FakeServer:
    """Answers with `answers` in turn; None hangs up. `pieces`: how many parts an answer arrives in."""

    answers: Sequence[bytes | None] = (_CREATED,)
    pieces: int = 1
    delay_seconds: float = 0.001
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
                self.headers.append(headers)
                self.bodies.append(json.loads(await reader.readexactly(int(headers["Content-Length"]))))
                answer = self.answers[len(self.bodies) % len(self.answers)]
                if answer is None:
                    break
                size = -(-len(answer) // self.pieces)
                for start in range(0, len(answer), size):
                    await asyncio.sleep(self.delay_seconds)
                    writer.write(answer[start : start + size])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self.port


async def carry_out(servers: Sequence[FakeServer], *, coupons: Sequence[str] = ("one",), **further: Any) -> Result:
    async with AsyncExitStack() as stack:
        ports = [await stack.enter_async_context(server.listening()) for server in servers]
        plan = Plan(ports, 4, coupons, "201", warm_up_seconds=0.05, seconds=0.2)
        return await Load(replace(plan, **further)).run()


async def test_every_answer_is_counted_once_by_its_outcome() -> None:
    """What the generator reports is what the server did, refusals by the name of their problem."""
    server = FakeServer([_CREATED, _CREATED, _SOLD_OUT])
    result = await carry_out([server])
    assert sum(result.outcomes.values()) == len(server.bodies) == result.users
    assert set(result.outcomes) == {"201", "409 sold-out"}
    assert result.outcomes["409 sold-out"] == (len(server.bodies) + 1) // 3  # the 2nd, the 5th, the 8th ...
    assert 0 < sum(result.answered) < result.outcomes["201"]
    assert 0 < result.p50_ms <= result.p99_ms <= result.max_ms


async def test_an_answer_may_arrive_in_pieces() -> None:
    """A split answer is one answer."""
    server = FakeServer([_SOLD_OUT], pieces=7)
    result = await carry_out([server])
    assert result.outcomes == {"409 sold-out": len(server.bodies)}


async def test_a_request_that_is_never_answered_in_time_shows_in_the_latencies() -> None:
    """One that was sent before the window and is answered after it was under way all the while."""
    slow, quick = FakeServer(delay_seconds=0.6), FakeServer()
    result = await carry_out([slow, quick])
    assert result.answered[0] == 0
    assert result.max_ms >= 600
    assert result.p50_ms < 300


async def test_users_are_never_repeated() -> None:
    """Every request is a user's first, also across measurements that go on where the last one ended."""
    server = FakeServer()
    first = await carry_out([server])
    await carry_out([server], first_user=first.users)
    users = [body["user_id"] for body in server.bodies]
    assert len(set(users)) == len(users)


async def test_connections_are_dealt_evenly_and_answers_counted_by_instance() -> None:
    """Each instance has its share of the connections, and its own count."""
    servers = [FakeServer(), FakeServer()]
    result = await carry_out(servers)
    assert [server.connections for server in servers] == [2, 2]
    assert all(0 < count < len(server.bodies) for count, server in zip(result.answered, servers, strict=True))


async def test_a_connection_that_is_lost_is_an_outcome() -> None:
    """A server that hangs up is seen, and the rest goes on."""
    result = await carry_out([FakeServer([None]), FakeServer()])
    assert result.outcomes["connection lost"] == 2
    assert result.answered[0] == 0
    assert result.answered[1] > 0


@pytest.mark.parametrize(("skew", "first_is_favoured"), [(0.0, False), (1.1, True)])
async def test_coupons_are_picked_by_the_skew(skew: float, first_is_favoured: bool) -> None:
    """Uniform is even; Zipf has a first among equals."""
    server = FakeServer()
    names = ["a", "b", "c", "d"]
    await carry_out([server], coupons=names, skew=skew)
    picked = Counter(body["coupon_name"] for body in server.bodies)
    assert set(picked) == set(names)
    assert (picked["a"] > 0.35 * picked.total()) is first_is_favoured


async def test_each_request_may_have_a_key_of_its_own_and_further_members() -> None:
    """Keys differ also between two runs of one plan, or the second would be told the answers of the first."""
    server = FakeServer()
    for _ in range(2):
        await carry_out([server], idempotency_keys=True, members={"hold_seconds": 5, "attributes": {"country": "KR"}})
    keys = [headers["Idempotency-Key"] for headers in server.headers]
    assert len(set(keys)) == len(keys)
    assert all((body["hold_seconds"], body["attributes"]) == (5, {"country": "KR"}) for body in server.bodies)


async def test_a_user_may_claim_several_times() -> None:
    """Two in a row are one user's."""
    server = FakeServer()
    await carry_out([server], claims_per_user=2)
    claims = Counter(body["user_id"] for body in server.bodies)
    assert set(claims.values()) - {1} == {2}
    assert list(claims.values()).count(1) <= 1


async def test_users_who_claim_again_claim_another_coupon() -> None:
    """No user claims a coupon twice, and all have claimed the first before measuring begins."""
    server, names = FakeServer(), [f"coupon-{number}" for number in range(100)]
    result = await carry_out([server], coupons=names, users=25, warm_up_answers=25, warm_up_seconds=0)
    claims = [(body["coupon_name"], body["user_id"]) for body in server.bodies]
    assert len({user for _, user in claims}) == 25
    assert len(set(claims)) == len(claims)
    assert Counter(coupon for coupon, _ in claims)["coupon-0"] == 25
    assert sum(result.answered) <= len(claims) - 25


@pytest.mark.parametrize("users", [0, 20])
async def test_each_user_has_a_token_that_the_service_accepts(users: int, tmp_path: Path) -> None:
    """It is of the user that is claimed for; users who claim again use theirs again."""
    key, documents = new_key()
    keys_file = tmp_path / "keys.json"
    keys_file.write_bytes(orjson.dumps(documents))
    server, names = FakeServer(delay_seconds=0.005), [f"coupon-{number}" for number in range(100)]
    for _ in range(2):
        await carry_out([server], coupons=names if users else names[:1], users=users, token_key=key, token_count=1000)
    sent = [
        (headers["Authorization"].removeprefix("Bearer "), body["user_id"])
        for headers, body in zip(server.headers, server.bodies, strict=True)
    ]
    assert len({token for token, _ in sent}) == (2 * users or len(sent))
    async with open_tokens(str(keys_file), issuer=ISSUER, audience=AUDIENCE) as tokens:
        for token, user_id in sent[:20] + sent[-20:]:
            found = await tokens.user_of(token)
            assert isinstance(found, TokenUser)
            assert found.user_id == user_id


def test_cpu_time_counts_children_also_when_they_have_ended() -> None:
    """A backend that goes away takes none of its time with it."""
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.2 <= cpu_seconds(process.pid) < 5
        process.communicate(b"\n")
    assert cpu_seconds(process.pid) == 0


def test_bulk_claims_are_those_of_the_users_before_the_first_new_one(database_url: str) -> None:
    """What `growth` fills in belongs to users 0 to n - 1 of the load generator, so that it never meets them."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO coupons (name, amount, remaining_amount) VALUES ('coupon-000001-000000', 99, 99)"
        )
        assert clone_coupon(connection, "coupon-000001-000000", 2) == ["coupon-000001-000001", "coupon-000001-000002"]
        fill_claims(connection, "coupon-000001-000000", _MANY_TIMES)
        users = {row[0] for row in connection.execute("SELECT user_id FROM user_claims")}
        stock = {row[0]: row[1] for row in connection.execute("SELECT name, remaining_amount FROM coupons")}
    plan = Plan([], 1, ["coupon-000001-000000"], "201", 0, 0)
    request = Load(plan).next_request
    assert users == {json.loads(request().partition(b"\r\n\r\n")[2])["user_id"] for _ in range(_MANY_TIMES)}
    assert stock == {"coupon-000001-000000": 99 - _MANY_TIMES, "coupon-000001-000001": 99, "coupon-000001-000002": 99}


def _series(
    name: str, *rates: float, kind: str = "claimsvc", answered: Sequence[int] = (), p99_ms: float = 1
) -> Series:
    cpu = {"server": 1.0, "postgres": 0.0, "redis": 0.0, "client": 0.1}
    results = [
        Result(1.0, list(answered) or [int(rate)], {"201": int(rate)}, p99_ms, p99_ms, p99_ms, cpu, int(rate))
        for rate in rates
    ]
    return Series(Contestant(name, (Server(kind),)), results)  # type: ignore[arg-type]


def test_a_figure_is_the_ratio_of_medians() -> None:
    """One bad round of five changes nothing."""
    series = {
        FLOOR: _series(FLOOR, 1000, 1000, 10, 1000, 1000, kind="floor"),
        "redlock": _series("redlock", 500, 1, 500, 500, 9999),
        "redlock, 1 instance": _series("redlock, 1 instance", 500),
        "redlock, 3 instances": _series("redlock, 3 instances", 400, answered=[100, 150, 150], p99_ms=3),
    }
    figures = {figure.name: figure for figure in judged_figures(series)}
    hot = figures["hot coupon, claims/s ÷ floor requests/s"]
    assert (hot.measured, hot.is_reached, hot.reaches(hot.aim)) == (0.5, True, False)
    assert figures["hot coupon ÷ lock per claim"].measured is None
    assert figures["hot coupon ÷ lock per claim"].is_reached is None
    assert figures["3 instances ÷ 1, claims/s"].measured == 0.8
    assert figures["3 instances ÷ 1, p99"].measured == 3.0
    assert figures["3 instances, slowest's share ÷ equal share"].measured == 0.75
    assert figures[_REFUSED].measured == 0
    assert len(figures) == _FIGURES


def test_every_refusal_with_stock_left_counts() -> None:
    """Of any contestant of the service, but of what was sold out on purpose, and of what is not ours."""
    busy, sold_out, other = (_series(name, 9) for name in ("redlock, 8 instances", "sold out", "other"))
    for one in (busy, sold_out, other):
        one.results[0].outcomes["503 lock-busy"] = 3
    series = {
        "busy": busy,
        "sold out": replace(sold_out, contestant=replace(sold_out.contestant, sold_out=True)),
        "other": replace(other, contestant=Contestant("other", (Server("for-update"),))),
    }
    [refused] = [figure for figure in judged_figures(series) if figure.name == _REFUSED]
    assert (refused.measured, refused.is_reached) == (3, False)


def test_every_figure_has_its_contestants() -> None:
    """A quick run measures all that is judged: no figure refers to a name that nobody has."""
    found = {one.name: one for phase in phases(["redlock", "row_lock"], quick=True) for one in phase.contestants}
    series = {name: replace(_series(name, 5), contestant=one) for name, one in found.items()}
    assert [figure.name for figure in judged_figures(series) if figure.measured is None] == []


def test_contestants_of_one_name_are_one() -> None:
    """Figures take the earlier phase's series of two with one name, so both must be the same."""
    found: dict[str, Contestant] = {}
    for phase in phases(["redlock", "row_lock", "counter"], quick=False):
        for one in phase.contestants:
            assert found.setdefault(one.name, one) == one


def test_an_upper_bound_is_kept_from_below() -> None:
    """CPU per claim is better when it is less."""
    assert Figure("cpu", 1.3, 2.0, 1.4, at_most=True).reaches(1.4)
    assert not Figure("cpu", 2.1, 2.0, 1.4, at_most=True).reaches(2.0)


def test_names_are_unique_within_a_phase_and_quick_is_part_of_the_whole() -> None:
    """Figures find their contestants by name, in both kinds of run."""
    strategies = ["redlock", "row_lock"]
    whole = {phase.name: {one.name for one in phase.contestants} for phase in phases(strategies, quick=False)}
    for phase in (*phases(strategies, quick=True), *phases(strategies, quick=False)):
        names = [one.name for one in phase.contestants]
        assert len(set(names)) == len(names)
        assert set(names) <= whole[phase.name]


def test_the_picture_is_xml_with_a_bar_for_each_contestant() -> None:
    """Whatever a contestant is called; the load generator's ceiling is left out."""
    series = [_series(LOAD_GENERATOR, 50_000), _series(FLOOR, 1000, kind="floor"), _series("<a & b>", 500)]
    drawn = ElementTree.fromstring(draw([(Phase("main", "Side by side", ()), series)]))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 2


_WANTED = ("FOR UPDATE", "sold out", "codes", "token seen")
_TINY = ["--quick", "--rounds", "1", "--seconds", "0.5", *(word for name in _WANTED for word in ("--only", name))]


def _bench(state_dir: Path, folder: Path) -> "subprocess.Popen[str]":
    outputs = ["--json", str(folder / "bench.json"), "--svg", str(folder / "bench.svg"), "--state-dir", str(state_dir)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.bench", *_TINY, *outputs],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_tiny_run_measures_and_writes_what_it_saw(tmp_path: Path) -> None:
    """The real thing, as short as can be: servers, load, tables, files, and nothing left behind."""
    with temporary_state_dir() as folder:
        with _bench(folder / "state", tmp_path) as process:
            printed, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        assert not (folder / "state").exists()
    document = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert document["schema"] == 2
    names = [[one["name"] for one in phase["contestants"]] for phase in document["phases"]]
    assert names == [[FLOOR, "FOR UPDATE per claim", "redlock, sold out"], [PLAIN, CODES, TOKEN_SEEN]]
    measured = {one["name"]: one for phase in document["phases"] for one in phase["contestants"]}
    for one in measured.values():
        assert one["median"]["per_second"] > 0
        assert one["median"]["cpu_ms"]["server"] > 0
        assert len(one["rounds"]) == 1
    assert all(set(measured[name]["outcomes"]) == {"201"} for name in ("FOR UPDATE per claim", CODES, TOKEN_SEEN))
    assert measured[TOKEN_SEEN]["outcomes"]["201"] > measured[TOKEN_SEEN]["users"]
    assert measured["FOR UPDATE per claim"]["median"]["cpu_ms"]["postgres"] > 0
    assert measured["redlock, sold out"]["outcomes"]["201"] == 1
    assert len(document["figures"]) == _FIGURES
    reached = {figure["name"]: figure["is_reached"] for figure in document["figures"]}
    assert (reached[_REFUSED], reached["2 workers ÷ 1"]) == (True, None)
    assert "sold out, answers/s ÷ floor" in printed
    ElementTree.parse(tmp_path / "bench.svg")


def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGTERM in the middle stops every server that was started, and its data goes."""
    with temporary_state_dir() as folder:
        with _bench(folder / "state", tmp_path) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if "Starting the service" in line:
                    break
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 130
        assert not (folder / "state").exists()
        assert not _processes_of(folder)


def _processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder: PostgreSQL's and the masters'."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and "pytest" not in line:
            found.append(line)
    return found
