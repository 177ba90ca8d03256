"""The dashboards are what their code makes, and follow the conventions of Grafana's dashboard linter."""

import re
from collections.abc import Mapping
from itertools import combinations

import pytest
from prometheus_client import CollectorRegistry

from claimsvc.domain import ClaimOutcome
from claimsvc.domain.outcomes import claim_result_names, refusals, rows
from claimsvc.http.server.problems import PROBLEMS
from claimsvc.observability.metrics import Metrics
from dashboards.all import rendered
from dashboards.claims import BY_STOCK, EXCLUDED, FAILED
from dashboards.panels import COUNT
from tests.observability.dashboards.panels import FOLDER, Panel, dashboards, models, panels
from tests.support.alert_rules import recordings

UIDS = {
    "claims.json": "claimsvc-claims",
    "dependencies.json": "claimsvc-dependencies",
    "lock-contention.json": "claimsvc-lock-contention",
    "overview.json": "claimsvc-overview",
}
BY_COUPON = {"claims.json", "lock-contention.json"}
"""The dashboards on which a coupon can be chosen."""
OF_ALL = "Of all coupons, whichever are chosen."
COLLAPSED = {"Requests", "Attempts", "Batches", "Jobs", "Processes"}
"""Rows that explain what others show."""
UNITS = {"s", "percentunit", "reqps", "ops", COUNT, "bytes", "none"}

# The unit of an expression, by the first form that it has.
_UNITS_OF_FORMS = (
    (r"claimsvc_ticket_longest_wait_ratio", {"percentunit"}),
    (r"claimsvc_(ticket_longest_wait|queue_stalled)_seconds", {"s"}),
    (r":left30d|^1 - .*job:claimsvc_balancer|^avg\(", {"percentunit"}),
    (r"^sum\(job:claimsvc_balancer_\w+:rate5m", {"reqps"}),
    (r"^max\(job:claimsvc_claims_failed:ratio_rate5m", {"none"}),  # a burn rate: how many times
    (r"histogram_quantile\(.*_seconds_bucket", {"s"}),
    (r"ceil\(|_sum.* / .*claimsvc_batch_size", {"none"}),  # claims, of which the average is a fraction
    (r"^sum by \(coupon, instance\) \(claimsvc_lock_held", {"none"}),  # the rest of it only chooses coupons
    (r"^count\(|round\(", {COUNT}),
    (r"claimsvc_lock_attempts_total.* / .*claimsvc_lock_attempts_total", {"percentunit"}),  # of others it only chooses
    (r"time\(\) - ", {"s"}),
    (r"_memory_bytes.* / .*_memory_limit_bytes", {"percentunit"}),
    (r"claimsvc_coupon_remaining\S* .*\) / \(sum by \(coupon\) \(rate", {"s"}),  # units / (units / second)
    (r"claimsvc_coupon_remaining.* / claimsvc_coupon_amount", {"percentunit"}),
    (r"process_open_fds.* / process_max_fds", {"percentunit"}),
    (r"_seconds_sum", {"percentunit"}),  # seconds / second
    (r"process_cpu_seconds_total", {"none"}),  # cores
    (r"_bytes", {"bytes"}),
    (r"^\(1 - .* / \(1 - ", {"none"}),  # a burn rate: how many times
    (r"rate\(.* / .*rate\(", {"percentunit"}),
    (r"rate\(", {"reqps", "ops"}),
    (r"claimsvc_(redis_master_up|ready|dependency_up)", {COUNT, "none"}),  # how many there are, or the state of one
    (r"", {COUNT}),
)

_METRIC = re.compile(r"(?<![:\w])((?:claimsvc|process)_\w+|up)\b(\{[^}]*\})?")
_RANGE = re.compile(r"\[([^\]]*)\]")

every_dashboard = pytest.mark.parametrize("name", UIDS)
every_panel = pytest.mark.parametrize("panel", [pytest.param(panel, id=str(panel)) for panel in panels()])


@pytest.fixture(scope="module")
def labels() -> dict[str, set[str]]:
    """The labels of every metric that an instance exports, by the names that expressions know them by."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
        metrics = Metrics()
    registry: CollectorRegistry = metrics._registry
    found: dict[str, set[str]] = {"up": set(), "claimsvc_probe_success": set()}
    for collector, names in registry._collector_to_names.items():
        for name in names:
            found[name] = set(getattr(collector, "_labelnames", ()))
    for family in registry.collect():  # those of the process are not told before they are collected
        for sample in family.samples:
            found.setdefault(sample.name, set(sample.labels))
    return found


def test_what_is_committed_is_what_the_code_makes() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    stale = [name for name, text in rendered().items() if committed.get(name) != text]
    assert stale == [], "run `python -m dashboards` and commit what it writes"
    assert set(committed) == set(UIDS)


@every_dashboard
def test_a_dashboard_has_a_lasting_uid_and_links_to_the_others_that_keep_what_is_chosen(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["uid"] == UIDS[name]
    assert dashboard["title"]
    assert dashboard["description"]
    others = {f"/d/{uid}" for uid in UIDS.values() if uid != dashboard["uid"]}
    assert {link["url"] for link in dashboard["links"]} == others
    assert all(link["includeVars"] and link["keepTime"] for link in dashboard["links"])


@every_dashboard
def test_a_dashboard_has_the_agreed_variables(name: str) -> None:
    source, *others = dashboards()[name]["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    by_coupon = ["coupon"] if name in BY_COUPON else []
    assert [variable["name"] for variable in others] == ["job", "instance", *by_coupon]
    for variable in others:
        assert variable["query"].startswith("label_values(claimsvc_")
        assert variable["datasource"]["uid"] == "${datasource}"
        assert (variable["multi"], variable["includeAll"], variable["allValue"]) == (True, True, ".+")


@every_dashboard
def test_a_dashboard_marks_deploys(name: str) -> None:
    [deploys] = dashboards()[name]["annotations"]["list"]
    assert deploys["enable"]
    assert "claimsvc_build_info" in deploys["target"]["expr"]
    assert "by (version)" in deploys["target"]["expr"]


@every_dashboard
def test_panels_have_ids_and_places_of_their_own(name: str) -> None:
    everything = list(models(dashboards()[name]))
    ids = [model["id"] for model in everything]
    assert len(set(ids)) == len(ids)
    titles = [model["title"] for model in everything]
    assert len(set(titles)) == len(titles)
    for one, other in combinations([model["gridPos"] for model in everything], 2):
        assert _apart(one, other), f"{one} and {other} overlap"
        assert max(one["x"] + one["w"], other["x"] + other["w"]) <= 24


def test_rows_that_explain_are_collapsed_and_no_others() -> None:
    rows = [model for each in dashboards().values() for model in models(each) if model["type"] == "row"]
    assert {row["title"] for row in rows if row["collapsed"]} == COLLAPSED
    assert all(bool(row.get("panels")) == row["collapsed"] for row in rows)


def test_the_overview_comes_first_and_leads_to_each_of_the_others() -> None:
    everything = list(models(dashboards()["overview.json"]))
    assert everything[0]["title"] == "Is it up?"
    links = [link["url"].partition("?")[0] for model in everything for link in model.get("links") or ()]
    assert sorted(links) == sorted(f"/d/{uid}" for uid in UIDS.values() if uid != "claimsvc-overview")


@pytest.mark.parametrize("term", ["hint", "lease", "slice"])
def test_a_term_of_ours_is_explained_where_it_is_shown(term: str) -> None:
    explained = {
        "hint": "A hint tells a waiting instance that its lock is free",
        "lease": "A lease is the right to a lock for 20 s",
        "slice": r"keeps a lock for a slice \(2.5 ms",
    }
    assert any(re.search(explained[term], panel.model["description"]) for panel in panels())


def _apart(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return (
        one["x"] + one["w"] <= other["x"]
        or other["x"] + other["w"] <= one["x"]
        or one["y"] + one["h"] <= other["y"]
        or other["y"] + other["h"] <= one["y"]
    )


@every_panel
def test_a_panel_says_which_question_it_answers_and_in_which_unit(panel: Panel) -> None:
    assert panel.title
    assert re.match(r"[A-Z](?:(?!\. )[^?])*\?", panel.model["description"]), "it begins with a question"
    assert panel.unit in UNITS
    assert panel.model["datasource"]["uid"] == "${datasource}"
    assert panel.targets
    for target in panel.targets:
        assert target["datasource"]["uid"] == "${datasource}"
        expected = _expected_units(target["expr"])
        assert panel.unit in expected, target["expr"]


def _expected_units(expression: str) -> set[str]:
    """Which unit an expression's value has, as its form says."""
    return next(units for form, units in _UNITS_OF_FORMS if re.search(form, expression))


@every_panel
def test_a_query_is_of_what_is_chosen(panel: Panel, labels: dict[str, set[str]]) -> None:
    for target in panel.targets:
        asked = _METRIC.findall(target["expr"])
        assert asked or re.search(r"\bjob\w*:|\bALERTS\b", target["expr"])
        for metric, selector in asked:
            assert metric in labels, f"no such metric: {metric}"
            if metric == "claimsvc_probe_success":
                continue  # a prober is no instance
            assert '{job=~"$job", instance=~"$instance"' in selector, metric
            if f"{panel.dashboard}.json" in BY_COUPON:
                assert ('coupon=~"$coupon"' in selector) == ("coupon" in labels[metric]), metric
        if f"{panel.dashboard}.json" in BY_COUPON:
            filtered = any("$coupon" in target["expr"] for target in panel.targets)
            assert panel.model["description"].endswith(OF_ALL) != filtered


@every_panel
def test_a_query_of_what_is_recorded_asks_for_a_rule_that_there_is(panel: Panel) -> None:
    for target in panel.targets:
        for recorded, selector in re.findall(r"\b(job\w*:[\w:]+)(\{[^}]*\})?", target["expr"]):
            assert recorded in recordings()
            # What the balancer tells has the balancer's job.
            assert ("$job" in selector) == ("claimsvc_balancer" not in recorded), recorded


@every_panel
def test_a_query_looks_back_over_what_grafana_chooses(panel: Panel) -> None:
    for target in panel.targets:
        ranges = set(_RANGE.findall(target["expr"]))
        # An hour is how long ago a series must not have been there to be new: see `promql.happened`.
        assert ranges - {"1h"} <= {"$__rate_interval", "$__range"}
        chosen = panel.model["type"] == "stat" and "topk(" in target["expr"]
        assert target["instant"] == ("$__range" in ranges or chosen), "what is of the whole range is asked once"


@every_panel
def test_what_is_counted_is_shown_in_whole_numbers(panel: Panel) -> None:
    assert (panel.model["fieldConfig"]["defaults"].get("decimals") == 0) == (panel.unit == COUNT)


def test_the_figures_of_instances_are_green_only_if_all_are_there() -> None:
    [up] = [panel for panel in panels() if panel.title == "Instances up"]
    [missing] = [panel for panel in panels() if panel.title == "Instances missing"]
    assert not {"green"} & {step["color"] for step in up.model["fieldConfig"]["defaults"]["thresholds"]["steps"]}
    good, bad = missing.model["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert (good["value"], good["color"], bad["value"], bad["color"]) == (None, "green", 1, "red")


@every_panel
def test_a_query_of_a_histogram_brings_its_exemplars(panel: Panel) -> None:
    for target in panel.targets:
        assert target["exemplar"] == ("_bucket{" in target["expr"])
        if panel.model["type"] == "heatmap":
            assert target["format"] == "heatmap"
            assert panel.model["options"]["yAxis"]["unit"] in UNITS


def test_every_outcome_of_a_claim_that_is_listed_exists_and_all_others_are_refusals_and_only_5xx_are_failures() -> None:
    failures, excluded, by_stock = (set(names.split("|")) for names in (FAILED, EXCLUDED, BY_STOCK))
    assert failures | excluded | by_stock <= set(claim_result_names())
    decided = {row.name for _, row in rows(ClaimOutcome)} - excluded
    by_rules = {problem.slug for kind, problem in refusals() if issubclass(kind, ClaimOutcome)}
    assert decided - by_stock <= by_rules
    assert {"not-started", "ended", "paused", "not-eligible"} <= decided - by_stock
    assert failures <= {slug for slug, problem in PROBLEMS.items() if problem.status >= 500}
    assert not {slug for slug in decided & set(PROBLEMS) if PROBLEMS[slug].status >= 500}


def test_rules_and_dashboards_mean_the_same_by_decided() -> None:
    expressions = [rule["expr"] for rule in recordings().values()]
    expressions += [target["expr"] for panel in panels() for target in panel.targets if "0.25" in target["expr"]]
    asked = [found for each in expressions for found in re.findall(r"claim_duration\w+\{[^}]*outcome([^,}\s]*)", each)]
    assert len(asked) > 20
    assert set(asked) == {f'!~"{FAILED}|{EXCLUDED}"'}


def test_every_metric_of_the_service_is_on_some_dashboard(labels: dict[str, set[str]]) -> None:
    everything = " ".join(target["expr"] for panel in panels() for target in panel.targets)
    shown = {re.sub(r"_(bucket|sum|count)$", "", metric) for metric, _ in _METRIC.findall(everything)}
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in labels if name.startswith("claimsvc_")}
    assert {name for name in families if name not in shown and f"{name}_total" not in labels} == set()
