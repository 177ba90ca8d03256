"""`dev`, `serve`, and the worker processes of `serve`."""

from pathlib import Path
from typing import Annotated

import typer


def dev(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            help="After `--`: a command to run against the service (with URL and CLAIMSVC_ADMIN_KEY set); the service "
            "stops when the command ends."
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(envvar=["PORT", "CLAIMSVC_PORT"], min=0, max=65535, help="Port to listen on; 0: a free one."),
    ] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on, such as 0.0.0.0 in a container.")] = "127.0.0.1",
    is_open: Annotated[
        bool, typer.Option("--open", help="Let coupons be created without a key. Only on an address of this machine.")
    ] = False,
    masters: Annotated[int, typer.Option(min=1, max=9, help="Number of Valkey masters; it must be odd.")] = 3,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="CLAIMSVC_STATE_DIR", help="Folder that keeps the data between runs.", show_default="./.claimsvc"
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the data of earlier runs first.")] = False,
    temporary: Annotated[bool, typer.Option("--temporary", help="Use a new folder, and delete it at the end.")] = False,
    parent: Annotated[int | None, typer.Option(hidden=True, help="Stop when this process ends.")] = None,
    database_url: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_DATABASE_URL")] = None,
    redis_urls: Annotated[str | None, typer.Option(hidden=True, envvar="CLAIMSVC_REDIS_URLS")] = None,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, the service and a demo coupon. Ctrl-C stops it.

    If CLAIMSVC_DATABASE_URL or CLAIMSVC_REDIS_URLS is set, those servers are used and not started.
    For root, the data is in /var/lib/claimsvc, because PostgreSQL then runs as `nobody`.
    """
    if masters % 2 == 0:
        raise typer.BadParameter("must be odd: a Redlock needs an odd number of masters", param_hint="--masters")
    # Imported here, because help must not wait for the service.
    from claimsvc import logs
    from claimsvc.server.development import Development, run_development

    logs.configure("error", "auto")  # until the service starts
    status = run_development(
        Development(
            host=host,
            port=port,
            is_open=is_open,
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
        typer.Option(min=1, max=64, help="Worker processes that share the port.", show_default="CLAIMSVC_WORKERS"),
    ] = None,
) -> None:
    """Run the service in production, on the servers in CLAIMSVC_DATABASE_URL and CLAIMSVC_REDIS_URLS.

    SIGTERM or Ctrl-C stops it after the accepted requests are answered.
    """
    # Imported here, because help must not wait for the service.
    from claimsvc import logs, server
    from claimsvc.config import load_settings

    settings = load_settings(host=host, port=port, workers=workers)
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve(settings)
    raise typer.Exit(status)


def worker(
    listen_fd: int, parent_fd: int, ready_fd: int, admin_fd: Annotated[int | None, typer.Argument()] = None
) -> None:
    """Run one of the worker processes of `serve`, which starts them itself."""
    from claimsvc import logs, server  # as in `serve`
    from claimsvc.config import load_settings

    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    status = server.serve_as_worker(settings, listen_fd, parent_fd, ready_fd, admin_fd)
    raise typer.Exit(status)
