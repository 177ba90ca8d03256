"""The dashboard Overview: is it up, do users get answers, and which of the others to open."""

from grafana_foundation_sdk.builders.dashboard import DashboardLink
from grafana_foundation_sdk.models.dashboard import Dashboard, DashboardLinkType

from dashboards.claims import claims_by_outcome
from dashboards.dependencies import masters_that_may_still_fail
from dashboards.page import TITLES, page
from dashboards.panels import COUNT, Panel, Query, Steps, figure, graph
from dashboards.promql import UP

_NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
_ALL_IS_GOOD: Steps = ((None, "red"), (1.0, "green"))
_BUDGET: Steps = ((None, "red"), (0.0, "orange"), (0.5, "green"))
_BALANCER = " Measured at the load balancer, whatever job and instance are chosen."


def overview() -> Dashboard:
    return page(
        "claimsvc-overview",
        "Is the service up, and do users get answers? Start here. The last row says which dashboard shows the cause.",
        {
            "Is it up?": _is_up(),
            "Do users get answers?": _answers(),
            "Answers over time": _answers_over_time(),
            "Which dashboard to open": _which_to_open(),
        },
        by_coupon=False,
    )


def _is_up() -> list[Panel]:
    return [
        figure(
            "Pages firing",
            "How many alerts that page are firing now? Each links the entry of the runbook that begins with the command"
            " to type.",
            COUNT,
            Query('count(ALERTS{alertstate="firing", severity="page", alertname=~"Claimsvc.+"}) or vector(0)'),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Instances ready",
            "How many instances take requests? At 0, the load balancer refuses every request.",
            COUNT,
            Query("sum(claimsvc_ready{HERE}) or vector(0)"),
            steps=((None, "red"), (1.0, "blue")),
        ),
        figure(
            "Instances not ready",
            "How many known instances take no requests, because they are not ready or cannot be scraped?",
            COUNT,
            Query(f"count({UP}) - (sum(claimsvc_ready{{HERE}}) or vector(0))"),
            steps=_NONE_IS_GOOD,
        ),
        _usable("PostgreSQL usable", "Which share of the instances can use PostgreSQL?", "postgresql"),
        _usable("Masters usable", "Which share of the instances reaches a majority of the Redis masters?", "redis"),
        masters_that_may_still_fail(),
    ]


def _usable(title: str, question: str, dependency: str) -> Panel:
    return figure(
        title,
        question,
        "percentunit",
        Query(f'avg(claimsvc_dependency_up{{HERE, dependency="{dependency}"}})'),
        steps=_ALL_IS_GOOD,
    )


def _answers() -> list[Panel]:
    return [
        figure(
            "Answered, last 5 minutes",
            "Which share of the requests was answered without a 5xx in the last five minutes?" + _BALANCER,
            "percentunit",
            Query("1 - sum(job:claimsvc_balancer_failed:rate5m) / (sum(job:claimsvc_balancer_answers:rate5m) > 0)"),
            steps=((None, "red"), (0.999, "green")),
        ),
        figure(
            "Answered, last hour",
            "Which share of the requests was answered without a 5xx in the last hour?" + _BALANCER,
            "percentunit",
            Query("1 - max(job:claimsvc_balancer_failed:ratio_rate1h)"),
            steps=((None, "red"), (0.999, "green")),
        ),
        figure(
            "Probes that succeed",
            "Which share of the targets that are probed answers the probes? No data: there is no prober.",
            "percentunit",
            Query("avg(max by (target) (claimsvc_probe_success))"),
            steps=_ALL_IS_GOOD,
        ),
        figure(
            "Balancer: budget of 30 days left",
            "How much of the budget of 0.1 % of failed answers is left, of 30 days? Below 0 the objective is missed."
            + _BALANCER,
            "percentunit",
            Query("min(job:claimsvc_balancer_budget:left30d)"),
            steps=_BUDGET,
        ),
        figure(
            "Claims: budget of 30 days left",
            "How much of the budget of 0.1 % of failed claims is left, of 30 days? Measured at the instances, so it"
            " does not see what the balancer refuses.",
            "percentunit",
            Query('min(job:claimsvc_availability_budget:left30d{job=~"$job"})'),
            steps=_BUDGET,
        ),
        figure(
            "Latency: budget of 30 days left",
            "How much of the budget of 1 % of slow claims is left, of 30 days?",
            "percentunit",
            Query('min(job:claimsvc_latency_budget:left30d{job=~"$job"})'),
            steps=_BUDGET,
        ),
    ]


def _answers_over_time() -> list[Panel]:
    return [
        graph(
            "Answers of the balancer",
            "What do users get? 5xx that the instances do not show are the balancer's own: no instance was ready."
            + _BALANCER,
            "reqps",
            Query("sum(job:claimsvc_balancer_answers:rate5m)", "all"),
            Query("sum(job:claimsvc_balancer_failed:rate5m)", "5xx"),
            width=12,
        ),
        claims_by_outcome(width=12),
    ]


def _which_to_open() -> list[Panel]:
    burn = (
        'job:claimsvc_claims_failed:ratio_rate5m{job=~"$job"} / (1 - 0.999)'
        ' or (job:claimsvc_claims_slow:ratio_rate5m{job=~"$job"} / (1 - 0.99))'
    )
    gave_up = (
        'job_coupon:claimsvc_lock_give_ups:increase5m{job=~"$job"}'
        ' unless job_coupon:claimsvc_coupon_remaining:min{job=~"$job"} == 0'
    )
    down = "(count({} == 0) or vector(0))"
    return [
        figure(
            "Claims, if above 1",
            "Do claims fail, or are they slow? How many times faster than the objectives allow their budget is spent;"
            " at 14.4 that pages.",
            "none",
            Query(f"max({burn})"),
            width=8,
            steps=((None, "green"), (1.0, "orange"), (14.4, "red")),
        ).links([_link("claimsvc-claims")]),
        figure(
            "Lock contention, if not 0",
            "How many claims gave up waiting for a lock in the last five minutes, though units were left?",
            COUNT,
            Query(f"round(sum({gave_up})) or vector(0)"),
            width=8,
            steps=_NONE_IS_GOOD,
        ).links([_link("claimsvc-lock-contention")]),
        figure(
            "Dependencies, if not 0",
            "How many dependencies and masters cannot be used, each counted for every instance that sees it so?",
            COUNT,
            Query(f"{down.format('claimsvc_dependency_up{HERE}')} + {down.format('claimsvc_redis_master_up{HERE}')}"),
            width=8,
            steps=_NONE_IS_GOOD,
        ).links([_link("claimsvc-dependencies")]),
    ]


def _link(uid: str) -> DashboardLink:
    return DashboardLink(TITLES[uid]).type(DashboardLinkType.LINK).url(f"/d/{uid}?${{__url_time_range}}")
