"""The Dockerfile and .dockerignore; the health check is run as it stands there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from packaging.requirements import Requirement
from typer.main import get_command

from claimsvc.__main__ import app
from claimsvc.embedded import free_port
from tests.deploy.files import PROJECT, ROOT, copied, dockerfile, enters_builds, final_stage, image, services
from tests.deploy.lock_files import EXTRAS, declared


def test_every_stage_starts_from_a_full_version_or_another_stage() -> None:
    stages: set[str] = set()
    for one in (one for one in dockerfile() if one.keyword == "FROM"):
        base, *alias = re.split(r"\s+AS\s+", one.arguments, flags=re.IGNORECASE)
        assert base in stages or re.match(r"\d+\.\d+\.\d+-slim-[a-z]+$", image(base)[1])
        stages.update(alias)


def test_what_is_copied_exists_and_enters_the_build() -> None:
    assert copied()
    for source in copied():
        path = ROOT / source
        assert path.exists(), f"{source} is missing: the image cannot be built"
        files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        kept = {file for file in files if enters_builds(str(file.relative_to(ROOT)))}
        assert {file for file in files if file.suffix != ".pyc"} == kept


@pytest.mark.parametrize(
    "path",
    [
        *(".env", ".env.production", ".git/config", ".venv/bin/python", ".claimsvc/postgres/password"),
        *("tests/conftest.py", "claimsvc/__pycache__/config.cpython-313.pyc", "build/lib/claimsvc/config.py"),
    ],
)
def test_secrets_data_and_leftovers_do_not_enter_the_build(path: str) -> None:
    assert not enters_builds(path)


def test_the_image_runs_as_a_numbered_user_without_rights() -> None:
    assert [one.arguments for one in final_stage("USER")] == ["10001:10001"]
    last_written = max(dockerfile().index(one) for word in ("COPY", "RUN") for one in final_stage(word))
    assert dockerfile().index(final_stage("USER")[0]) > last_written


def test_the_image_has_all_that_the_service_needs_and_what_traces_need() -> None:
    """What the lock has of it, tests/deploy/test_locks.py compares."""
    (installed,) = [
        re.findall(r"requirements/(\w+)\.txt", command)
        for one in dockerfile()
        if one.keyword == "RUN"
        for command in one.arguments.split("&&")
        if "--python /opt/claimsvc/bin/python" in command and "--requirement" in command
    ]
    assert installed == ["run"]
    wanted = {*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["tracing"]}
    assert {str(requirement) for requirement in declared(EXTRAS["run"])} == {str(Requirement(one)) for one in wanted}


def test_nothing_is_installed_in_the_image_itself() -> None:
    assert not any(re.search(r"\b(pip|apt|apt-get|curl|wget)\b", one.arguments) for one in final_stage("RUN"))


def test_the_image_and_its_services_run_commands_that_there_are() -> None:
    (program,) = final_stage("ENTRYPOINT")[0].exec_form()
    assert program in PROJECT["scripts"]
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for words in (final_stage("CMD")[0].exec_form(), services()["migrate"]["command"]):
        assert words[0] in commands


def test_the_label_names_the_licence_of_the_project() -> None:
    assert f'org.opencontainers.image.licenses="{PROJECT["license"]}"' in final_stage("LABEL")[0].arguments


def test_it_is_stopped_as_the_service_expects() -> None:
    assert final_stage("STOPSIGNAL")[0].arguments == "SIGTERM"


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_says_whether_the_service_is_ready(status: int, healthy: bool) -> None:
    with _service(status) as (port, asked):
        assert _is_healthy(port) is healthy
    assert asked == ["/readyz"]


def test_the_health_check_fails_where_nothing_listens() -> None:
    assert not _is_healthy(free_port())


def _is_healthy(port: int) -> bool:
    python, *arguments = final_stage("HEALTHCHECK")[0].exec_form()
    assert python == "python"
    # A proxy that Docker passes on to containers must not be asked for our own port.
    environment = {"CLAIMSVC_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, timeout=10, stderr=subprocess.DEVNULL).returncode == 0


@contextmanager
def _service(status: int) -> Iterator[tuple[int, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port, asked
        server.shutdown()
        thread.join()
