"""What serves: `dev`, `serve`, and the workers that it starts."""

from pathlib import Path
from typing import Annotated

import typer

from claimsvc import logs, server
from claimsvc.config import load_settings
from claimsvc.server.development import Development, run_development


def dev(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="After `--`: run this against the service (URL and CLAIMSVC_ADMIN_KEY are set), then stop."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(envvar=["PORT", "CLAIMSVC_PORT"], min=0, max=65535, help="0: a free one.")
    ] = 8080,
    masters: Annotated[int, typer.Option(min=1, max=9, help="Valkey masters, an odd number.")] = 3,
    state_dir: Annotated[
        Path | None,
        typer.Option(envvar="CLAIMSVC_STATE_DIR", help="Where data is kept between runs.", show_default="./.claimsvc"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what earlier runs have left.")] = False,
    temporary: Annotated[bool, typer.Option("--temporary", help="Keep nothing: use a new folder each time.")] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="Stop when this parent process is gone.")] = None,
    database_url: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_DATABASE_URL")] = None,
    redis_urls: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_REDIS_URLS")] = None,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, the service and a demo coupon. Ctrl-C stops it.

    Servers that CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS name are used instead of starting some.
    Root's data is kept in /var/lib/claimsvc, because PostgreSQL runs as `nobody` then.
    """
    if masters % 2 == 0:
        raise typer.BadParameter("a Redlock needs an odd number of masters", param_hint="--masters")
    status = run_development(
        Development(
            port=port,
            masters=masters,
            state_dir=state_dir,
            temporary=temporary,
            fresh=fresh,
            database_url=database_url or None,
            redis_urls=redis_urls or None,
            command=tuple(command or ()),
            parent_pid=parent,
        )
    )
    raise typer.Exit(status)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="CLAIMSVC_HOST")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on.", show_default="CLAIMSVC_PORT")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that share the port.", show_default="CLAIMSVC_WORKERS"),
    ] = None,
) -> None:
    """Serve, on databases that CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS name. For production.

    SIGTERM and Ctrl-C stop it once the requests that it has accepted are answered.
    """
    settings = load_settings(host=host, port=port, workers=workers)
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve(settings)
    raise typer.Exit(status)


def worker(listen_fd: int, parent_fd: int, ready_fd: int) -> None:
    """One of the processes that `serve --workers` starts; not for people."""
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve_as_worker(settings, listen_fd, parent_fd, ready_fd)
    raise typer.Exit(status)
