"""What docker-compose.yml mounts: the configurations agree with its services, the settings and each other."""

import json
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from typer.main import get_command

from claimsvc.embedded import free_port
from stress_test.__main__ import app as stress_test
from tests.deploy.files import ROOT, environment_of, mounts, services
from tests.support.alert_rules import alerts
from tests.support.waiting import block_until

INSTANCES = [name for name in services() if name.startswith("app")]


def read(name: str) -> Any:
    """A configuration below deploy/compose."""
    return yaml.safe_load((ROOT / "deploy/compose" / name).read_text())


def targets(job: str) -> list[str]:
    """What Prometheus asks under that job."""
    (found,) = [one for one in read("prometheus.yml")["scrape_configs"] if one["job_name"] == job]
    return [target for static in found["static_configs"] for target in static["targets"]]


def assert_reachable(caller: str, address: str) -> None:
    """One container reaches another: by its service's name, on a network that both are on."""
    host = urlsplit(f"//{address}").hostname
    if host != "127.0.0.1":
        assert set(services()[caller]["networks"]) & set(services()[str(host)]["networks"]), f"{caller} to {address}"


@pytest.mark.parametrize("name", list(services()))
def test_every_file_that_is_mounted_exists(name: str) -> None:
    assert bool(mounts(name)) == (name in {"lb", "prometheus", "alertmanager", "grafana", *INSTANCES})
    for source, target in mounts(name):
        assert (ROOT / source).exists(), f"{source} is missing"
        assert Path(source).suffix == Path(target).suffix


def test_every_configuration_is_mounted() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "deploy/compose").rglob("*") if path.is_file()}
    there = {name if name != "deploy/compose/tokens/README.md" else "deploy/compose/tokens" for name in there}
    assert there == {source for name in services() for source, _ in mounts(name) if source.startswith("deploy")}


def test_the_load_balancer_deals_to_every_instance_and_nothing_else() -> None:
    text = (ROOT / "deploy/compose/haproxy.cfg").read_text()
    servers = re.findall(r"^    server (\S+) (\S+)( track .*)?$", text, re.MULTILINE)
    claims = {name: address for name, address, tracks in servers if not tracks}
    consoles = {name: address for name, address, tracks in servers if tracks}
    assert claims == {name: f"{name}:8080" for name in INSTANCES}
    assert consoles == {name: f"{name}:{environment_of(name, {})['CLAIMSVC_ADMIN_PORT']}" for name in INSTANCES}
    for address in (*claims.values(), *consoles.values()):
        assert_reachable("lb", address)
    assert set(services()["lb"]["depends_on"]) == set(INSTANCES)


def test_the_ports_of_the_load_balancer_are_those_that_others_use() -> None:
    bound = re.findall(r"bind :(\d+)", (ROOT / "deploy/compose/haproxy.cfg").read_text())
    *serves, watched = bound
    assert [port.rpartition(":")[2] for port in services()["lb"]["ports"]] == serves
    assert targets("haproxy") == [f"lb:{watched}"]
    assert urlsplit(services()["lb"]["healthcheck"]["test"][-1]).port == int(watched)


def test_prometheus_asks_every_instance_by_itself() -> None:
    assert targets("claimsvc") == [f"{name}:{environment_of(name, {})['CLAIMSVC_ADMIN_PORT']}" for name in INSTANCES]


def test_prometheus_reaches_all_that_it_names() -> None:
    config = read("prometheus.yml")
    managers = [target for one in config["alerting"]["alertmanagers"] for target in one["static_configs"][0]["targets"]]
    assert managers == targets("alertmanager")
    for address in [*managers, *(target for one in config["scrape_configs"] for target in targets(one["job_name"]))]:
        assert_reachable("prometheus", address)


def test_the_rules_are_where_prometheus_looks_for_them() -> None:
    (pattern,) = read("prometheus.yml")["rule_files"]
    assert ("dashboards/rules", str(Path(pattern).parent)) in mounts("prometheus")


def test_grafana_reaches_its_sources_and_is_told_how_often_there_are_new_figures() -> None:
    sources = {source["uid"]: source for source in read("grafana/datasources.yml")["datasources"]}
    for source in sources.values():
        assert_reachable("grafana", urlsplit(source["url"]).netloc)
    interval = read("prometheus.yml")["global"]["scrape_interval"]
    assert sources["prometheus"]["jsonData"]["timeInterval"] == interval
    assert [source["uid"] for source in sources.values() if source.get("isDefault")] == ["prometheus"]


def test_the_dashboards_are_where_grafana_looks_for_them() -> None:
    (provider,) = read("grafana/dashboards.yml")["providers"]
    folder = provider["options"]["path"]
    assert ("dashboards/grafana", folder) in mounts("grafana")
    home = environment_of("grafana", {})["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == folder


def test_every_health_check_asks_the_port_that_is_served() -> None:
    for name in ("prometheus", "alertmanager", "grafana"):
        asked = urlsplit(services()[name]["healthcheck"]["test"][-1]).port
        assert services()[name]["ports"][0].endswith(f":{asked}")


def test_the_stress_test_runs_only_when_asked_for_and_against_the_load_balancer() -> None:
    stress = services()["stress"]
    assert stress["profiles"] == ["stress"]
    url = environment_of("stress", {})["URL"]
    assert_reachable("stress", urlsplit(url).netloc)
    assert urlsplit(url).netloc == "lb:8080"
    assert stress["command"][0] in get_command(stress_test).commands  # type: ignore[attr-defined]
    assert all("profiles" not in service for name, service in services().items() if name != "stress")


def test_every_alert_has_somebody_to_tell() -> None:
    config = read("alertmanager.yml")
    receivers = {receiver["name"] for receiver in config["receivers"]}
    assert {config["route"]["receiver"], *(route["receiver"] for route in config["route"]["routes"])} == receivers


def test_prometheus_takes_its_configuration_with_the_rules(tmp_path: Path) -> None:
    adapted = tmp_path / "prometheus.yml"
    text = (ROOT / "deploy/compose/prometheus.yml").read_text()
    adapted.write_text(text.replace("/etc/prometheus/rules", str(ROOT / "dashboards/rules")))
    accepted_by("promtool", "prometheus", "check", "config", str(adapted))


def test_alertmanager_takes_its_configuration() -> None:
    accepted_by("amtool", "prometheus-alertmanager", "check-config", str(ROOT / "deploy/compose/alertmanager.yml"))


def test_who_is_called_out_gets_no_ticket_for_the_same_trouble(tmp_path: Path) -> None:
    """A real Alertmanager is told of every alert of ours, all in the same job."""
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("prometheus-alertmanager is not installed (Debian: apt-get install prometheus-alertmanager)")
    with alertmanager(tmp_path) as url:
        labels = [{"alertname": name, "job": "claimsvc", **rule["labels"]} for name, rule in alerts().items()]
        told = json.dumps([{"labels": each} for each in labels]).encode()
        request = urllib.request.Request(f"{url}/api/v2/alerts", told, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=10).close()

        def silenced() -> set[str]:
            with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=10) as answer:
                known = json.load(answer)
            assert {each["labels"]["alertname"] for each in known} == set(alerts())
            return {each["labels"]["alertname"] for each in known if each["status"]["inhibitedBy"]}

        tickets = {
            *("ClaimsvcAvailabilityBurnSlow", "ClaimsvcLatencyBurnSlow"),
            *("ClaimsvcMasterDown", "ClaimsvcInstanceDown", "ClaimsvcBalancerErrorsSlow"),
            # Pages that tell of the consequences of what another page names.
            *("ClaimsvcNotReady", "ClaimsvcMostNotReady", "ClaimsvcInstanceNotReady"),
            *("ClaimsvcLockGiveUps", "ClaimsvcLockContended", "ClaimsvcDatabaseSlow", "ClaimsvcPoolExhausted"),
            "ClaimsvcQueueStalled",
        }
        block_until(lambda: silenced() == tickets, "what tells of the same trouble is held back, and nothing else")


@contextmanager
def alertmanager(folder: Path) -> Iterator[str]:
    """A real one, with the configuration as it stands; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("prometheus-alertmanager", f"--config.file={ROOT / 'deploy/compose/alertmanager.yml'}"),
                *(f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"),
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=10):
            return True
        return False

    try:
        block_until(is_ready, "Alertmanager is ready")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.parametrize("severity", ["page", "ticket", "info"])
def test_an_alert_goes_to_who_is_meant(severity: str) -> None:
    config = str(ROOT / "deploy/compose/alertmanager.yml")
    said = accepted_by(
        *("amtool", "prometheus-alertmanager", "config", "routes", "test"),
        *(f"--config.file={config}", "alertname=Any", f"severity={severity}"),
    )
    assert said.split() == [severity]


def accepted_by(program: str, package: str, *arguments: str) -> str:
    """What the real tool says when it is content."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
    checked = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return checked.stdout
