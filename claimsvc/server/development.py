"""Everything on one machine for whoever tries or develops the service: what `claimsvc dev` and `make run` do."""

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
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from claimsvc import logs
from claimsvc.bootstrap import migrate
from claimsvc.config import Settings, load_settings
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
from claimsvc.errors import EXIT_OK
from claimsvc.server.stress import stress_tests
from claimsvc.server.worker import listen, run, serve_worker

_HOST = "127.0.0.1"
_DEMO_COUPON = "demo"
_DEMO_AMOUNT = 100
_EXIT_INTERRUPTED = 130
_WATCH_SECONDS = 0.5
_ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Development:
    """What was asked for.

    `command`, if any, is run against the service, and its end is the end of everything. `parent_pid` is a process
    whose end is the end of everything too: `make` may be killed in a way that it cannot pass on.
    """

    port: int
    masters: int
    state_dir: Path | None
    temporary: bool
    fresh: bool
    database_url: str | None
    redis_urls: str | None
    command: tuple[str, ...]
    parent_pid: int | None


def run_development(wanted: Development) -> int:
    """Start everything, serve until Ctrl-C or SIGTERM, and stop everything. The result is the exit status.

    Raises:
        SettingsError: the port cannot be had, or a setting is wrong.
        EmbeddedServiceError: PostgreSQL or Valkey cannot be started; the message says what to do.
    """
    # With a command the output is the command's own, and this goes where it does not disturb.
    console = Console(stderr=bool(wanted.command), highlight=False, soft_wrap=True)
    # Until the service runs, SIGTERM is like Ctrl-C: it ends whatever is being started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_watch_surroundings, args=(wanted.parent_pid,), daemon=True).start()
    status = _EXIT_INTERRUPTED if wanted.command else EXIT_OK
    try:
        with ExitStack() as stack:
            stack.callback(_ignore_further_signals)
            sock = listen(_HOST, wanted.port)
            stack.callback(sock.close)
            services = stack.enter_context(_services(wanted, console))
            # The next run's servers have other ports.
            stack.callback((services.state_dir / _ENVIRONMENT).unlink, missing_ok=True)
            status = _serve(wanted, services, sock, console)
            _ignore_further_signals()
            if not wanted.command:
                console.print("Stopping.")
    except KeyboardInterrupt:
        console.print("Stopped before everything was started.")
    return status


@contextmanager
def _services(wanted: Development, console: Console) -> Iterator[EmbeddedServices]:
    begun = time.monotonic()

    def report(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  {text}")

    with ExitStack() as stack:
        if wanted.temporary:
            state_dir = stack.enter_context(temporary_state_dir())
        else:
            state_dir = wanted.state_dir or default_state_dir(Path.cwd())
        if wanted.database_url:
            report("Using the PostgreSQL that CLAIMSVC_DATABASE_URL names")
        if wanted.redis_urls:
            report("Using the masters that CLAIMSVC_REDIS_URLS names")
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
        report("Bringing the schema up to date")
        migrate(services.database_url)
        report("Starting the service")
        yield services


def _serve(wanted: Development, services: EmbeddedServices, sock: socket.socket, console: Console) -> int:
    key = _admin_key(services.state_dir)
    port = sock.getsockname()[1]
    settings = load_settings(
        database_url=services.database_url, redis_urls=services.redis_urls, host=_HOST, port=port, workers=1
    )
    digest = hashlib.sha256(key.encode()).hexdigest()
    settings = settings.model_copy(update={"admin_keys": (*settings.admin_keys, digest)})
    environment = _write_environment(services, settings, key)
    # A request for a line each would bury what is printed below.
    logs.configure("warning" if "log_level" not in settings.model_fields_set else settings.log_level, "auto")
    url = f"http://{_HOST}:{port}"
    status = _EXIT_INTERRUPTED if wanted.command else EXIT_OK

    async def when_ready() -> int | None:
        nonlocal status
        await _create_demo_coupon(settings)
        if not wanted.command:
            kept = f"Data is kept in {services.state_dir}; `--fresh` throws it away."
            _print_welcome(console, url, key, environment, "Nothing is kept." if wanted.temporary else kept)
            return None
        status = await _run_command(wanted.command, {"URL": url, "CLAIMSVC_ADMIN_KEY": key})
        return status

    async def serve_all() -> int:
        async with stress_tests(url, key) as stress:
            return await serve_worker(settings, sock, on_ready=when_ready, stress=stress)

    run(serve_all())
    return status


def _write_environment(services: EmbeddedServices, settings: Settings, key: str) -> Path:
    """A file that makes a shell's commands those of this service. It has passwords, so it is never printed itself."""
    variables = {
        "CLAIMSVC_DATABASE_URL": services.database_url,
        "CLAIMSVC_REDIS_URLS": ",".join(services.redis_urls),
        "CLAIMSVC_ADMIN_KEYS": ",".join(settings.admin_keys),
        "CLAIMSVC_ADMIN_KEY": key,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # Where `claimsvc` is: what is typed should be what the documentation says.
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    path = services.state_dir / _ENVIRONMENT
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
    # Claimants stay claimants between runs, so the example names a new one every time.
    user_id = f"alice-{secrets.token_hex(2)}"
    console.print(f"""
[bold green]claimsvc is ready.[/] Open
  {url}/console   what happens now, and a button that fires the stress test
  {url}/docs      the API, to read and to try
  {url}/metrics   what Prometheus reads
  {url}/readyz    whether its databases answer

Claim the coupon [bold]{_DEMO_COUPON}[/]:
  curl -X POST {url}/api/coupons/claim -H 'Content-Type: application/json' \\
    -d '{{"user_id": "{user_id}", "coupon_name": "{_DEMO_COUPON}"}}'

Create a coupon, with the admin key [bold]{key}[/]:
  curl -X POST {url}/api/coupons -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{{"name": "summer-{secrets.token_hex(2)}", "amount": 10}}'

Look into it, from another terminal:
  . {shlex.quote(str(environment))}  # it has passwords, so only you can read it
  claimsvc locks          who holds which lock, and who waits
  claimsvc doctor         whether its databases are as they should be
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
    """What is being stopped must not be interrupted; it takes a moment, and the guards see to the end anyway."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _watch_surroundings(parent_pid: int | None) -> None:
    """Stop when the parent is gone, or the terminal: its end is told to the session's leader alone, maybe `make`."""
    terminals = select.poll()
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # any of them may be closed
            if stream.isatty():
                terminals.register(stream, 0)  # no events but the unasked-for: hang-up and error
    while parent_pid in (None, os.getppid()):
        if terminals.poll(_WATCH_SECONDS * 1000):
            os.kill(os.getpid(), signal.SIGHUP)  # the guards see to the servers, whatever comes of it
            return
    os.kill(os.getpid(), signal.SIGTERM)
