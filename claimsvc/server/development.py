"""Runs the service with its databases on one machine, for development: `claimsvc dev` and `make run`."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import select
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from claimsvc import logs
from claimsvc.bootstrap import migrate
from claimsvc.config import Settings, load_settings, run_marker, run_variables
from claimsvc.connect import open_repositories
from claimsvc.domain import PLAIN, StrategyName
from claimsvc.embedded import (
    EmbeddedServices,
    GuardedProcess,
    current_account,
    default_state_dir,
    embedded_services,
    temporary_state_dir,
    write_private,
)
from claimsvc.errors import EXIT_OK, SettingsError
from claimsvc.http.framework.services import ForDevelopment
from claimsvc.server.process import listen, run
from claimsvc.server.stress import stress_tests
from claimsvc.server.worker import serve_worker

_DEMO_COUPON = "demo"
_DEMO_AMOUNT = 100
_EXIT_INTERRUPTED = 130
_WATCH_SECONDS = 0.5
_ENVIRONMENT = "environment"
_PORT_SETTING = "`make run PORT=8081`, or with --port 8081"
_OPEN = """[bold yellow]This service is open (--open):[/] programs of this machine can create coupons without a key.
"""


@dataclass(frozen=True, slots=True)
class Development:
    """The options of `claimsvc dev`.

    Args:
        host: the address to listen on.
        port: to serve on; 0 chooses a free one.
        is_open: whether coupons can be created without a key; only on an address of this machine.
        masters: number of Valkey masters to start.
        state_dir: where data is kept; None for the default.
        temporary: keep data in a temporary folder instead.
        fresh: delete the data of earlier runs.
        database_url: a PostgreSQL to use instead of starting one.
        redis_urls: masters to use instead of starting any, separated by commas.
        command: runs against the service; everything stops when it ends. May be empty.
        parent_pid: everything stops when this process ends, because a killed `make` cannot forward a signal.
    """

    host: str
    port: int
    is_open: bool
    masters: int
    state_dir: Path | None
    temporary: bool
    fresh: bool
    database_url: str | None
    redis_urls: str | None
    command: tuple[str, ...]
    parent_pid: int | None


def run_development(wanted: Development) -> int:
    """Start everything, serve until Ctrl-C or SIGTERM, and stop everything.

    Returns:
        The exit status: that of the command, if there is one.

    Raises:
        SettingsError: the port cannot be used, the service would be open to other machines, or a setting is wrong.
        EmbeddedServiceError: PostgreSQL or Valkey cannot be started; the message says what to do.
    """
    # Standard output belongs to the command, if there is one.
    console = Console(stderr=bool(wanted.command), highlight=False, soft_wrap=True)
    # Until the service runs, SIGTERM acts like Ctrl-C and interrupts the start.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_watch_surroundings, args=(wanted.parent_pid,), daemon=True).start()
    status = _EXIT_INTERRUPTED if wanted.command else EXIT_OK
    wanted = _with_own_servers(wanted, console)
    try:
        with ExitStack() as stack:
            stack.callback(_ignore_further_signals)
            sock = listen(wanted.host, wanted.port, setting=_PORT_SETTING)
            stack.callback(sock.close)
            if wanted.is_open:
                _require_loopback(sock, wanted.host)
            services = stack.enter_context(_services(wanted, console))
            # The file becomes invalid: the next run's servers have other ports.
            stack.callback((services.state_dir / _ENVIRONMENT).unlink, missing_ok=True)
            status = _serve(wanted, services, sock, console)
            _ignore_further_signals()
            if not wanted.command:
                console.print("Stopping.")
    except KeyboardInterrupt:
        console.print("Stopped during the start.")
    return status


def _with_own_servers(wanted: Development, console: Console) -> Development:
    """Leave the servers of another run out where they are gone, or where nobody would expect their data to be used."""
    run = run_variables()
    if run is None or not (run.is_over or wanted.temporary):
        return wanted
    why = "which is over" if run.is_over else "because this run keeps no data"
    console.print(
        f"[yellow]The variables of another run ({escape(str(run.file))}) are ignored, {why}:[/] "
        "servers are started here."
    )
    return replace(wanted, database_url=None, redis_urls=None)


@contextmanager
def _services(wanted: Development, console: Console) -> Iterator[EmbeddedServices]:
    started = time.monotonic()

    def report(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.1f} s[/]  {text}")

    with ExitStack() as stack:
        if wanted.temporary:
            state_dir = stack.enter_context(temporary_state_dir())
        else:
            state_dir = wanted.state_dir or default_state_dir(Path.cwd())
        other = run_variables()
        of_other = "" if other is None else f", of another run ({escape(str(other.file))})"
        if wanted.database_url:
            report(f"Using the PostgreSQL at CLAIMSVC_DATABASE_URL{of_other}")
        if wanted.redis_urls:
            report(f"Using the masters at CLAIMSVC_REDIS_URLS{of_other}")
        services = stack.enter_context(
            embedded_services(
                state_dir,
                masters=wanted.masters,
                fresh=wanted.fresh,
                database_url=wanted.database_url,
                redis_urls=tuple(url for part in (wanted.redis_urls or "").split(",") if (url := part.strip())),
                report=report,
            )
        )
        report("Migrating the schema")
        migrate(services.database_url)
        report("Starting the service")
        yield services


def _serve(wanted: Development, services: EmbeddedServices, sock: socket.socket, console: Console) -> int:
    key = _admin_key(services.state_dir)
    port = sock.getsockname()[1]
    settings = load_settings(
        database_url=services.database_url, redis_urls=services.redis_urls, host=wanted.host, port=port, workers=1
    )
    digest = hashlib.sha256(key.encode()).hexdigest()
    settings = settings.model_copy(update={"admin_keys": (*settings.admin_keys, digest), "admin_port": None})
    environment = _write_environment(services, settings, key)
    # A log line for each request would bury the welcome text.
    logs.configure("warning" if "log_level" not in settings.model_fields_set else settings.log_level, "auto")
    url = f"http://{_host_in_urls(sock)}:{port}"
    status = _EXIT_INTERRUPTED if wanted.command else EXIT_OK

    async def when_ready() -> int | None:
        nonlocal status
        await _create_demo_coupon(settings)
        if not wanted.command:
            kept = f"Data is kept in {services.state_dir}; `--fresh` deletes it."
            _print_welcome(console, url, key, environment, "No data is kept." if wanted.temporary else kept)
            if wanted.is_open:
                console.print(_OPEN)
            return None
        is_alone = wanted.database_url is None and wanted.redis_urls is None
        servers = (
            "servers of its own" if is_alone else "servers that CLAIMSVC_DATABASE_URL or CLAIMSVC_REDIS_URLS names"
        )
        console.print(f"The command runs against {url}, which was started for it, on {servers}.")
        status = await _run_command(wanted.command, {"URL": url, "CLAIMSVC_ADMIN_KEY": key})
        return status

    async def serve_all() -> int:
        async with stress_tests(url, key) as stress:
            host = _host_in_urls(sock)
            development = ForDevelopment(port=port, hosts=(f"{host}:{port}",), stress=stress, is_open=wanted.is_open)
            return await serve_worker(settings, sock, on_ready=when_ready, development=development)

    run(serve_all())
    return status


def _require_loopback(sock: socket.socket, host: str) -> None:
    """Refuse to be open to other machines.

    Raises:
        SettingsError: the address is not one of this machine alone.
    """
    if not ip_address(sock.getsockname()[0]).is_loopback:
        raise SettingsError(
            f"--open lets everybody who reaches the service create coupons, and {host} can be reached from other "
            "machines: leave --open or --host out."
        )


def _host_in_urls(sock: socket.socket) -> str:
    """The address under which this machine reaches the service, as it stands in URLs."""
    address = ip_address(sock.getsockname()[0])
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]"


def _write_environment(services: EmbeddedServices, settings: Settings, key: str) -> Path:
    """Write a file that sets up a shell to use this service. It contains passwords, so it is not printed."""
    variables = {
        "CLAIMSVC_DATABASE_URL": services.database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(services.redis_urls),
        "CLAIMSVC_ADMIN_KEYS": ",".join(settings.admin_keys),
        "CLAIMSVC_ADMIN_KEY": key,
    }
    path = services.state_dir / _ENVIRONMENT
    marker, run = run_marker(path, variables)
    variables[marker] = run
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # So that `claimsvc` is found, as in the documentation.
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    write_private(path, "".join(f"{line}\n" for line in lines))
    return path


def _admin_key(state_dir: Path) -> str:
    path = state_dir / "admin-key"
    if not path.exists():
        write_private(path, f"{secrets.token_urlsafe(32)}\n")
    return path.read_text().strip()


async def _create_demo_coupon(settings: Settings) -> None:
    async with open_repositories(settings) as database:
        await database.campaigns.create(_DEMO_COUPON, _DEMO_AMOUNT, StrategyName.REDLOCK, PLAIN, actor="claimsvc")


def _print_welcome(console: Console, url: str, key: str, environment: Path, kept: str) -> None:
    # Claims are kept between runs, so each example needs a new user.
    user_id = f"alice-{secrets.token_hex(2)}"
    wave = secrets.token_hex(2)
    console.print(f"""
[bold green]claimsvc is ready.[/] Open
  {url}/console   live figures, and buttons that start a stress test
  {url}/docs      interactive API documentation
  {url}/metrics   metrics for Prometheus
  {url}/readyz    whether the databases answer

Claim the coupon [bold]{_DEMO_COUPON}[/]:
  curl -X POST {url}/api/coupons/claim -H 'Content-Type: application/json' \\
    -d '{{"user_id": "{user_id}", "coupon_name": "{_DEMO_COUPON}"}}'

Create a coupon, with the admin key [bold]{key}[/]:
  curl -X POST {url}/api/coupons -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"name": "summer-{wave}", "amount": 10}}'

Try a ticket, for a claim that waits in a queue. Open {url}/queue/ and its id to watch it:
  curl -X POST {url}/api/coupons -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"name": "mega-{wave}", "amount": 1000, "queue":
      {{"rate_per_second": 1, "concurrency": 5, "max_wait_seconds": 600, "max_length": 100}}}}'
  for n in $(seq 30); do curl -X POST {url}/api/coupons/claim -H 'Content-Type: application/json' \\
    -d '{{"user_id": "user-'$n'", "coupon_name": "mega-{wave}"}}'; echo; done

Inspect it from another terminal:
  . {shlex.quote(str(environment))}  # contains passwords; only you can read it
  claimsvc locks          which instances hold locks or wait for them
  claimsvc doctor         checks of the databases and settings
  claimsvc coupon list

{kept} Ctrl-C stops.
""")


async def _run_command(command: tuple[str, ...], variables: dict[str, str]) -> int:
    process = GuardedProcess(command, account=current_account(), environment={**os.environ, **variables})
    try:
        return await asyncio.to_thread(process.wait)
    finally:
        await asyncio.to_thread(process.end)


def _ignore_further_signals() -> None:
    """Ignore signals while stopping. It takes a moment, and the guards end the servers in any case."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _watch_surroundings(parent_pid: int | None) -> None:
    """Stop when the parent process or the terminal is gone. Only the session's leader, maybe `make`, gets SIGHUP."""
    terminals = select.poll()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # any of them may be closed
            if stream.isatty():
                terminals.register(stream, 0)  # hang-up and error are always reported
    while parent_pid in (None, os.getppid()):
        if terminals.poll(_WATCH_SECONDS * 1000):
            os.kill(os.getpid(), signal.SIGHUP)  # the guards end the servers
            return
    os.kill(os.getpid(), signal.SIGTERM)
