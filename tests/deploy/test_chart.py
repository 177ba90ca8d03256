"""The Helm chart, rendered by Helm's own engine and held against Kubernetes' schemas and the settings."""

import copy
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from claimsvc.config import Settings, load_settings
from claimsvc.http.routes import OPERATORS_ROUTES, ROUTES
from claimsvc.server.process import TEARDOWN_SECONDS
from tests.deploy.chart import (
    CHART,
    NEEDED,
    SCHEMA,
    ChartError,
    Object,
    lint,
    needs_helm,
    one,
    render,
    rendered_files,
    settings_schema,
    values_of,
)
from tests.deploy.files import PROJECT, ROOT, final_stage
from tests.support.program import claimsvc_here

pytestmark = needs_helm
kubernetes = pytest.importorskip("kubernetes_validate", reason=NEEDED)

RELEASES = ["minimal", "full"]
EVERY_RELEASE = pytest.mark.parametrize("release", RELEASES)
OLDEST, NEWEST = "1.27", kubernetes.latest_version()
FOR_OPERATORS = {
    "PodMonitor",
    "ServiceMonitor",
    "PrometheusRule",
}  # not Kubernetes' own, so its schemas know nothing of them

PODS = {"demo-claimsvc", "demo-claimsvc-migrate", "demo-claimsvc-ready"}
PODS_OF = {"minimal": PODS, "full": PODS | {"demo-claimsvc-prober"}}

# What the supervisor may take past the grace: see claimsvc/server/supervisor.py.
SUPERVISOR_SECONDS = TEARDOWN_SECONDS + 5.0


@cache
def objects(release: str) -> list[Object]:
    """What ci/RELEASE-values.yaml makes; leave it as it is."""
    return render(values_of(release))


def pods(release: str) -> list[tuple[str, Object]]:
    """Every pod that the release starts, by the name of what starts it."""
    found = []
    for made in objects(release):
        if made["kind"] == "Pod":
            found.append((made["metadata"]["name"], made["spec"]))
        elif made["kind"] in ("Deployment", "Job"):
            found.append((made["metadata"]["name"], made["spec"]["template"]["spec"]))
    return found


def server(release: str) -> Object:
    """The container that serves."""
    (container,) = one(objects(release), "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


@EVERY_RELEASE
def test_helm_finds_nothing_to_complain_of(release: str) -> None:
    assert lint(values_of(release)) == []


@EVERY_RELEASE
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_fits_the_schema_of_its_kind(release: str, version: str) -> None:
    misfits = {made["kind"]: misfit for made in objects(release) if (misfit := misfit_of(made, version))}
    assert misfits.keys() <= FOR_OPERATORS, misfits


def test_an_object_that_does_not_fit_is_found() -> None:
    for version in (OLDEST, NEWEST):
        made = copy.deepcopy(one(objects("minimal"), "Deployment"))
        assert misfit_of(made, version) == ""
        made["spec"]["template"]["spec"]["containers"][0]["imagePullPolicie"] = "Always"
        assert "imagePullPolicie" in misfit_of(made, version)


def misfit_of(made: Object, version: str) -> str:
    """What Kubernetes of that version would say to an object; nothing, if it takes it."""
    try:
        kubernetes.validate(made, version, strict=True)
    except (kubernetes.ValidationError, kubernetes.SchemaNotFoundError) as error:
        return str(error)
    return ""


def test_the_oldest_kubernetes_that_is_tested_is_the_oldest_that_is_accepted() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["kubeVersion"] == f">={OLDEST}.0-0"


def test_the_versions_are_those_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["name"], chart["appVersion"]) == (PROJECT["name"], PROJECT["version"])
    assert server("minimal")["image"] == f"claimsvc:{PROJECT['version']}"


def test_what_is_off_makes_nothing() -> None:
    kinds = sorted(made["kind"] for made in objects("minimal"))
    assert kinds == [
        *("ConfigMap", "Deployment", "Job", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service", "Service"),
        "ServiceAccount",
    ]


def test_every_toggle_makes_its_object() -> None:
    kinds = {made["kind"] for made in objects("full")} - {made["kind"] for made in objects("minimal")}
    assert kinds == {
        *("HorizontalPodAutoscaler", "Ingress", "PodMonitor", "PrometheusRule", "Secret", "ServiceMonitor"),
    }


def test_what_is_on_by_default_can_be_turned_off() -> None:
    off = {"enabled": False}
    values = values_of("minimal") | {"podDisruptionBudget": off, "migrations": off, "serviceAccount": {"create": False}}
    kinds = sorted(made["kind"] for made in render(values | {"networkPolicy": off}))
    assert kinds == ["ConfigMap", "Deployment", "Pod", "Service", "Service"]


@EVERY_RELEASE
def test_a_pod_has_no_rights_and_can_write_nowhere_but_to_its_tmp(release: str) -> None:
    user, group = map(int, final_stage("USER")[-1].arguments.split(":"))
    assert {name for name, _ in pods(release)} == PODS_OF[release]
    for _, pod in pods(release):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": group,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@EVERY_RELEASE
def test_no_service_of_the_namespace_becomes_a_setting(release: str) -> None:
    """Kubernetes would give the pods CLAIMSVC_PORT=tcp://... for a Service that is named claimsvc."""
    assert {name: pod["enableServiceLinks"] for name, pod in pods(release)} == dict.fromkeys(PODS_OF[release], False)


def environment(release: str) -> dict[str, str]:
    """What the container that serves has in its environment, secrets included."""
    given: dict[str, str] = dict(one(objects(release), "ConfigMap")["data"])
    for variable in server(release)["env"]:
        if "value" in variable:
            given[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            given[variable["name"]] = one(objects(release), "Secret", reference["name"])["stringData"][reference["key"]]
    return given


def test_the_service_takes_the_settings_as_the_pods_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"CLAIMSVC_{name.upper()}", raising=False)
    for variable, value in environment("full").items():
        monkeypatch.setenv(variable, value)
    settings = load_settings()
    assert settings.host == "0.0.0.0"
    assert [settings.port, settings.admin_port] == [port["containerPort"] for port in server("full")["ports"]]
    assert (settings.workers, settings.claims_waiting_limit) == (2, 1_000_000)
    assert (settings.lock_slice_seconds, len(settings.redis_urls), len(settings.admin_keys)) == (0.0025, 3, 1)


@EVERY_RELEASE
def test_a_pod_is_given_all_the_time_that_stopping_may_take(release: str) -> None:
    pod = one(objects(release), "Deployment")["spec"]["template"]["spec"]
    grace = float(one(objects(release), "ConfigMap")["data"].get("CLAIMSVC_SHUTDOWN_GRACE_SECONDS", "30"))
    drain_notice = float(one(objects(release), "ConfigMap")["data"]["CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS"])
    sleep, before_seconds = server(release)["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert pod["terminationGracePeriodSeconds"] > (float(before_seconds) + drain_notice + grace + SUPERVISOR_SECONDS)
    assert pod["shareProcessNamespace"] is True


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, {"CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS": "5"}),
        ({"CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS": 0}, {"CLAIMSVC_SHUTDOWN_DRAIN_NOTICE_SECONDS": "0"}),
        ({"CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS": 17}, {"CLAIMSVC_SHUTDOWN_FAREWELL_SECONDS": "17"}),
    ],
)
def test_the_drain_notice_can_be_set_by_its_former_name(settings: dict[str, int], seconds: dict[str, str]) -> None:
    made = render({**values_of("minimal"), "settings": settings})
    data = one(made, "ConfigMap")["data"]
    assert {name: value for name, value in data.items() if "SHUTDOWN" in name} == seconds
    pod = one(made, "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 5 + int(*seconds.values()) + 30 + 20


def test_the_defaults_of_the_grace_and_the_drain_notice_are_those_of_the_settings() -> None:
    assert Settings.model_fields["shutdown_grace_seconds"].default == 30
    assert Settings.model_fields["shutdown_drain_notice_seconds"].default == 1


@EVERY_RELEASE
def test_the_probes_are_routes_and_an_outage_of_a_database_restarts_nothing(release: str) -> None:
    paths = {kind: server(release)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert set(paths.values()) <= {route.path for route in ROUTES}


@EVERY_RELEASE
def test_the_selectors_find_the_pods_that_serve_and_no_others(release: str) -> None:
    labels = {
        "Deployment": one(objects(release), "Deployment")["spec"]["template"]["metadata"]["labels"],
        "Job": one(objects(release), "Job", "demo-claimsvc-migrate")["spec"]["template"]["metadata"]["labels"],
        "Pod": one(objects(release), "Pod", "demo-claimsvc-ready")["metadata"]["labels"],
    }
    selectors = [
        one(objects(release), "Service")["spec"]["selector"],
        one(objects(release), "Service", "demo-claimsvc-operators")["spec"]["selector"],
        one(objects(release), "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(objects(release), "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert [kind for kind, given in labels.items() if selector.items() <= given.items()] == ["Deployment"]


@EVERY_RELEASE
def test_the_migrations_run_before_anything_else_with_a_secret_that_is_there(release: str) -> None:
    job = one(objects(release), "Job", "demo-claimsvc-migrate")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    secret = container["env"][0]["valueFrom"]["secretKeyRef"]["name"]
    if release == "minimal":
        assert secret == values_of(release)["connections"]["existingSecret"]
    else:
        lent = one(objects(release), "Secret", secret)["metadata"]["annotations"]
        assert lent["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert int(lent["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"].get("helm.sh/hook-weight", "0"))


def test_nothing_in_the_release_reads_a_secret_by_its_value() -> None:
    texts = rendered_files(values_of("full"))
    holders = {path.rpartition("/")[2] for path, text in texts.items() if "claimsvc:secret@" in text}
    assert holders == {"secret.yaml", "migration.yaml"}


def test_a_change_of_a_setting_or_a_secret_makes_new_pods() -> None:
    values = values_of("full")
    before = one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    values["settings"]["CLAIMSVC_LOG_LEVEL"] = "debug"
    values["connections"]["databaseUrl"] += "2"
    after = one(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert {name for name in before if before[name] != after[name]} == {"checksum/settings", "checksum/secret"}


def test_the_ingress_shows_users_every_route_but_those_for_operators() -> None:
    rules = one(objects("full"), "Ingress")["spec"]["rules"]
    assert [rule["host"] for rule in rules] == values_of("full")["ingress"]["hosts"]
    ways = {path["path"]: path["backend"]["service"] for path in rules[0]["http"]["paths"]}
    assert ways.pop("/console") == {"name": "demo-claimsvc-operators", "port": {"name": "operators"}}  # as asked for
    assert all(service["port"] == {"name": "http"} for service in ways.values())
    shown = {route.path for route in ROUTES if any(f"{route.path}/".startswith(f"{prefix}/") for prefix in ways)}
    assert {route.path for route in ROUTES} - shown == {route.path for route in OPERATORS_ROUTES}


def test_without_being_asked_the_ingress_shows_no_page_for_operators() -> None:
    made = render({**values_of("minimal"), "ingress": {"enabled": True}})
    paths = [path["path"] for path in one(made, "Ingress")["spec"]["rules"][0]["http"]["paths"]]
    assert paths == ["/api", "/queue", "/problems", "/docs", "/openapi.json"]


def test_the_service_for_operators_stays_in_the_cluster() -> None:
    made = render({**values_of("minimal"), "service": {"type": "LoadBalancer"}})
    assert one(made, "Service")["spec"]["type"] == "LoadBalancer"
    assert one(made, "Service", "demo-claimsvc-operators")["spec"]["type"] == "ClusterIP"


def test_the_network_policy_lets_none_but_those_named_to_the_port_for_operators() -> None:
    labels = dict(one(objects("minimal"), "Service")["spec"]["selector"])
    del labels["app.kubernetes.io/component"]
    ours = {"podSelector": {"matchLabels": labels}}
    rules = {rule["ports"][0]["port"]: rule for rule in one(objects("minimal"), "NetworkPolicy")["spec"]["ingress"]}
    assert rules["operators"]["from"] == [ours]
    assert "from" not in rules["http"]
    full = one(objects("full"), "NetworkPolicy")["spec"]
    monitoring, ingress = (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in ("monitoring", "ingress")
    )
    assert {rule["ports"][0]["port"]: rule for rule in full["ingress"]}["operators"]["from"] == [
        ours,
        monitoring,
        ingress,
    ]
    assert [rule.get("to") is not None for rule in full["egress"]] == [True, True, False]


def test_a_prometheus_that_the_network_policy_would_shut_out_is_refused() -> None:
    with pytest.raises(ChartError, match=r"name Prometheus in networkPolicy\.operatorsFrom"):
        render({**values_of("minimal"), "monitoring": {"serviceMonitor": {"enabled": True}}})


def test_an_ingress_that_the_network_policy_would_shut_out_of_the_pages_for_operators_is_refused() -> None:
    ingress = {"enabled": True, "operatorPaths": ["/console"]}
    with pytest.raises(ChartError, match=r"name the Ingress controller in networkPolicy\.operatorsFrom"):
        render({**values_of("minimal"), "ingress": ingress})
    assert render({**values_of("minimal"), "ingress": ingress, "networkPolicy": {"enabled": False}})


_DATABASE, _MASTER = "postgresql://me:a%2Fb@db/claims", "redis://master"
_JWT = {"CLAIMSVC_JWT_ISSUER": "https://issuer.example", "CLAIMSVC_JWT_AUDIENCE": "claims"}


@pytest.mark.parametrize(
    ("values", "port", "mended"),
    [
        ({"connections": {"databaseUrl": "postgresql://me:5432@db:6432/c", "redisUrls": [_MASTER]}}, 6432, "ports"),
        ({"connections": {"databaseUrl": "postgresql://me:s@db,db2:6432/c", "redisUrls": [_MASTER]}}, 6432, "rule"),
        ({"connections": {"databaseUrl": _DATABASE, "redisUrls": ["rediss://[fd00::1]:6380/0"]}}, 6380, "ports"),
        (
            {"connections": {"databaseUrl": _DATABASE, "redisUrls": ["redis://a", "redis://b", "redis://:p@c:6380"]}},
            *(6380, "rule"),
        ),
        ({"settings": {"CLAIMSVC_JWT_JWKS": "https://issuer.example/keys.json", **_JWT}}, 443, "rule"),
        ({"settings": {"CLAIMSVC_TRACING_URL": "http://collector:4318/v1/traces"}}, 4318, "rule"),
        ({"settings": {"CLAIMSVC_TRACING_URL": "http://collector/v1/traces"}}, 80, "rule"),
        ({"extraEnv": [{"name": "CLAIMSVC_TRACING_URL", "value": "https://collector/v1/traces"}]}, 443, "rule"),
    ],
)
def test_values_that_the_network_policy_would_cut_off_are_refused(
    values: dict[str, Any], port: int, mended: str
) -> None:
    needed = {"ports": "networkPolicy.egressPorts"}.get(mended, "networkPolicy.")
    with pytest.raises(ChartError, match=rf"leads to port {port}, which networkPolicy .*{needed}") as caught:
        render({**values_of("minimal"), "connections": {"existingSecret": "one"}, **values})
    assert "me:" not in str(caught.value)
    rule = {"ports": [{"port": port - 1, "endPort": port + 1, "protocol": "TCP"}]}
    named = {"egressPorts": [5432, 6379, port]} if mended == "ports" else {"extraEgress": [rule]}
    any_port = {"extraEgress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}
    policies: list[Object] = [named, any_port, {"enabled": False}]
    for policy in policies:
        assert render({**values_of("minimal"), **values, "networkPolicy": policy})
    other = {"extraEgress": [{"ports": [{"port": 9999, "protocol": "TCP"}]}]}
    with pytest.raises(ChartError, match=f"leads to port {port}"):
        render({**values_of("minimal"), **values, "networkPolicy": other})


@pytest.mark.parametrize(
    "values",
    [
        {"connections": {"databaseUrl": _DATABASE, "redisUrls": ["redis://u:6380@a", "rediss://[fd00::1]", _MASTER]}},
        {"connections": {"databaseUrl": "postgresql://a:b@localhost:5433/c", "redisUrls": ["redis://127.0.0.1:1"]}},
        {"settings": {"CLAIMSVC_JWT_JWKS": "/etc/keys.json", **_JWT}},
        {"settings": {"CLAIMSVC_JWT_JWKS": "http://localhost:9000/keys.json", **_JWT}},
        {"settings": {"CLAIMSVC_TRACING_URL": "http://127.0.0.1:4318/v1/traces"}},
        {"settings": {"CLAIMSVC_TRACING_URL": ""}},
        {"extraEnv": [{"name": "CLAIMSVC_TRACING_URL", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]},
    ],
)
def test_values_that_the_network_policy_does_not_cut_off_are_taken(values: dict[str, Any]) -> None:
    assert render({**values_of("minimal"), **values})


def test_the_job_label_is_the_one_that_the_rules_and_dashboards_use() -> None:
    (endpoint,) = one(objects("full"), "ServiceMonitor")["spec"]["endpoints"]
    relabelled = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    assert relabelled["job"]["replacement"] == "claimsvc"
    assert relabelled["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_name"]
    target = one(objects("full"), "Service", "demo-claimsvc-operators")
    assert endpoint["port"] in {port["name"] for port in target["spec"]["ports"]}
    selector = one(objects("full"), "ServiceMonitor")["spec"]["selector"]["matchLabels"]
    found = [made for made in objects("full") if selector.items() <= made["metadata"]["labels"].items()]
    assert [made["metadata"]["name"] for made in found if made["kind"] == "Service"] == ["demo-claimsvc-operators"]


def prober_of(made: list[Object]) -> Object:
    """The pod template of the prober."""
    template: Object = one(made, "Deployment", "demo-claimsvc-prober")["spec"]["template"]
    return template


def test_the_prober_asks_where_users_come_in_or_else_the_service() -> None:
    (container,) = prober_of(objects("full"))["spec"]["containers"]
    assert container["args"][:2] == ["probe", "https://claims.example.com"]
    (key,) = container["env"]
    assert key["valueFrom"]["secretKeyRef"] == {"name": "probe-key", "key": "CLAIMSVC_PROBE_KEY"}
    (container,) = prober_of(render({**values_of("minimal"), "prober": {"enabled": True}}))["spec"]["containers"]
    assert container["args"][:2] == ["probe", "http://demo-claimsvc:80"]
    assert "env" not in container


def test_the_command_takes_the_arguments_of_the_prober() -> None:
    (container,) = prober_of(objects("full"))["spec"]["containers"]
    assert claimsvc_here(*container["args"], "--help").returncode == 0
    given = {name: value for name, _, value in (each.partition("=") for each in container["args"][2:])}
    assert given == {"--every": "10", "--coupon": "claimsvc-probe", "--host": "0.0.0.0", "--listen": "9464"}


def test_the_prober_is_scraped_as_the_rules_have_it_and_serves_no_users() -> None:
    made, labels = objects("full"), prober_of(objects("full"))["metadata"]["labels"]
    monitor = one(made, "PodMonitor", "demo-claimsvc-prober")["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert {"targetLabel": "job", "replacement": "claimsvc-probe"} in endpoint["relabelings"]
    (container,) = prober_of(made)["spec"]["containers"]
    assert {"name": endpoint["port"], "containerPort": 9464} in container["ports"]
    selectors = [each["spec"]["selector"] for each in made if each["kind"] == "Service"]
    selectors.append(one(made, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"])
    assert not any(selector.items() <= labels.items() for selector in selectors)


def rules() -> list[Path]:
    return sorted((ROOT / "dashboards/rules").glob("*.yml"))


def test_the_rules_of_the_release_are_those_of_the_dashboards_folder() -> None:
    expected = [group for file in rules() for group in yaml.safe_load(file.read_text())["groups"]]
    assert expected
    values = values_of("full")
    values["monitoring"]["rules"] = {"enabled": True}
    made = json.dumps(one(render(values), "PrometheusRule")["spec"]["groups"])
    text = json.dumps(expected)
    text = text.replace('{{ or $externalLabels.runbook_url \\"dashboards/RUNBOOK.md\\" }}', "dashboards/RUNBOOK.md")
    text = text.replace("{{ $externalLabels.grafana_url }}", "")
    assert sorted(json.loads(made), key=str) == sorted(json.loads(text), key=str)


def test_alerts_link_the_runbook_and_grafana_where_they_are() -> None:
    groups = one(objects("full"), "PrometheusRule")["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    for alert in alerts:
        url = f"https://wiki.example.com/claims/RUNBOOK#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == url
        assert alert["annotations"]["dashboard_url"].startswith("https://grafana.example.com/d/claimsvc-")


def test_the_rules_of_the_balancer_ask_the_ingress_that_is_named() -> None:
    groups = one(objects("full"), "PrometheusRule")["spec"]["groups"]
    [rules_of_it] = [group["rules"] for group in groups if group["name"] == "claimsvc-balancer.rules"]
    text = json.dumps(rules_of_it)
    assert "haproxy" not in json.dumps([rule["expr"] for group in groups for rule in group["rules"]])
    assert 'up{job=\\"ingress-nginx\\"}' in json.dumps(groups)
    assert text.count('status=~\\"5..\\"') == 6
    assert text.count('ingress=\\"demo-claimsvc\\"') == 11


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_takes_the_rules_of_the_release(tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": one(objects("full"), "PrometheusRule")["spec"]["groups"]}))
    checked = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_dashboard_is_a_config_map_that_fits_and_grafana_finds_it() -> None:
    files = sorted((ROOT / "dashboards/grafana").glob("*.json"))
    assert len(files) == 4
    for file in files:
        made = one(objects("full"), "ConfigMap", f"demo-claimsvc-{file.stem}")
        (text,) = made["data"].values()
        assert json.loads(text) == json.loads(file.read_text())
        assert len(text.encode()) < 2**20  # what a ConfigMap holds at most
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_rules_and_dashboards_are_links_so_that_no_copy_goes_stale() -> None:
    for name in ("rules", "grafana"):
        assert (CHART / "files" / name).is_symlink()
        assert (CHART / "files" / name).resolve() == ROOT / "dashboards" / name


def test_the_schema_of_values_has_every_setting_with_its_bounds() -> None:
    """After a change of the settings: `python -m tests.deploy.chart` writes it."""
    assert json.loads(SCHEMA.read_text())["properties"]["settings"]["properties"] == settings_schema()


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"settings": {"CLAIMSVC_LOCK_TTL_SECONDS": 0}}, "CLAIMSVC_LOCK_TTL_SECONDS"),
        ({"settings": {"CLAIMSVC_LOCK_TLL_SECONDS": 20}}, "CLAIMSVC_LOCK_TLL_SECONDS"),
        ({"settings": {"CLAIMSVC_FAILPOINTS": "any"}}, "CLAIMSVC_FAILPOINTS"),
        ({"replicaCont": 3}, "replicaCont"),
        ({"connections": {"redisUrls": ["redis://a:6379", "redis://b:6379"]}}, "redisUrls"),
        ({"connections": {"adminKeys": ["a-key-itself"]}}, "adminKeys"),
        ({"connections": {}}, "connections.existingSecret or connections.databaseUrl is needed"),
    ],
)
def test_wrong_values_are_refused_by_name(values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ChartError, match=complaint):
        render({**({} if "connections" in values else values_of("minimal")), **values})


def test_the_notes_say_how_many_connections_postgresql_has_to_allow() -> None:
    notes = rendered_files(values_of("full"))["claimsvc/templates/NOTES.txt"]
    assert "up to 216 connections to PostgreSQL (9 pods, 2 workers each, 12 connections each)" in notes


def test_the_readme_of_the_chart_names_every_value_that_there_is() -> None:
    named = set((CHART / "README.md").read_text().split("`"))
    assert set(yaml.safe_load((CHART / "values.yaml").read_text())) <= named


def test_values_for_tests_are_not_packaged() -> None:
    ignored = (CHART / ".helmignore").read_text().splitlines()
    assert {"ci/", "files/rules/tests/"} <= set(ignored)
