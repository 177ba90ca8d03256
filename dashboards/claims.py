"""The dashboard Claims: objectives, outcomes, stock, queues, requests."""

from collections.abc import Callable

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, figure, graph, heatmap, quantile_graph
from dashboards.promql import COUPON, HERE, per_second, quantile, ten_most
from dashboards.queues import queue_panels

# The objectives are those of `rules/objectives.yml`.
_AVAILABILITY = 0.999
_LATENCY = 0.99
_LATENCY_SECONDS = 0.25

_CLAIMING = 'HERE, route="/api/coupons/claim", method="POST"'
FAILED = "lock-busy|unavailable|internal-error"
"""Outcomes that are failures of the service: answered with a 5xx."""
EXCLUDED = "cancelled|unknown-coupon|lease-lost|waits-for-units"
"""Outcomes that count for no objective: nobody waits any more, no coupon has the name, or the ticket is undecided."""
BY_STOCK = "claimed|already-claimed|hold-continued|sold-out|replayed|key-reused|queued"
"""Outcomes that the stock, the user's claims or the idempotency key decided, and the answer that a claim waits.

All others are refusals by the rules, such as that a queue is full.
"""

_FAILED = f'COUPON, outcome=~"{FAILED}"'
# Defined by exclusion, so that a new outcome counts as decided, and as refused by the rules, until it is listed above.
_DECIDED = f'HERE, outcome!~"{FAILED}|{EXCLUDED}"'
_REFUSED_BY_RULES = f'COUPON, outcome!~"{FAILED}|{EXCLUDED}|{BY_STOCK}"'


def claims() -> Dashboard:
    return page(
        "claimsvc-claims",
        "Do users get their coupons, and how fast? Lock contention and Dependencies show the causes of what is red.",
        {
            "Objectives, over the time range shown": _objectives(),
            "Claims": _outcomes(),
            "Stock and rules": _stock(),
            "Queues": queue_panels(),
            "Requests": _requests(),
        },
        collapsed={"Requests"},
    )


def _answered(over: str) -> str:
    """Return the share of claims that were answered without a 5xx."""
    return (
        f'sum(rate(claimsvc_http_requests_total{{{_CLAIMING}, status!~"5.."}}[{over}]))'
        f" / (sum(rate(claimsvc_http_requests_total{{{_CLAIMING}}}[{over}])) > 0)"
    )


def _in_time(over: str) -> str:
    """Return the share of decided claims that were decided in time."""
    return (
        f'sum(rate(claimsvc_claim_duration_seconds_bucket{{{_DECIDED}, le="{_LATENCY_SECONDS}"}}[{over}]))'
        f" / (sum(rate(claimsvc_claim_duration_seconds_count{{{_DECIDED}}}[{over}])) > 0)"
    )


def _burn_rate(share: str, objective: float) -> str:
    return f"(1 - {share}) / (1 - {objective})"


def _objectives() -> list[Panel]:
    return [
        *_objective(
            "Availability",
            "Which share of the claims was answered without a 5xx? The objective is 99.9 % over 30 days. Sold out,"
            " already claimed, paused, ended and the like are not failures.",
            "Availability budget left",
            "How much of the error budget is left? 100 %: no failures. Below 0 the objective is missed for the range"
            " shown.",
            _answered,
            _AVAILABILITY,
        ),
        *_objective(
            "Decided within 250 ms",
            "Which share of the decided claims, whether by stock or by rules, was decided within 250 ms? The objective"
            " is 99 % over 30 days.",
            "Latency budget left",
            "How much of the budget of slow claims is left? Below 0 the objective is missed for the range shown.",
            _in_time,
            _LATENCY,
        ),
        figure(
            "Availability budget of 30 days left",
            "How much of the error budget is left, of 30 days whatever time range is shown? It is recorded, so it needs"
            " as long to be true.",
            "percentunit",
            Query('min(job:claimsvc_availability_budget:left30d{job=~"$job"})'),
            steps=((None, "red"), (0.0, "orange"), (0.5, "green")),
        ),
        figure(
            "Latency budget of 30 days left",
            "How much of the budget of slow claims is left, of 30 days whatever time range is shown?",
            "percentunit",
            Query('min(job:claimsvc_latency_budget:left30d{job=~"$job"})'),
            steps=((None, "red"), (0.0, "orange"), (0.5, "green")),
        ),
        graph(
            "Burn rate",
            "How many times faster than the objectives allow is the budget spent? At 1 it lasts 30 days, at 14.4 only 2"
            " days: that pages.",
            "none",
            Query(_burn_rate(_answered("$__rate_interval"), _AVAILABILITY), "availability"),
            Query(_burn_rate(_in_time("$__rate_interval"), _LATENCY), "latency"),
            width=24,
        ),
    ]


def _objective(
    title: str, question: str, budget_title: str, budget_question: str, share: Callable[[str], str], objective: float
) -> list[Panel]:
    """Return the panels of an objective and of its remaining budget."""
    met = share("$__range")
    return [
        figure(title, question, "percentunit", Query(met, now=True), steps=((None, "red"), (objective, "green"))),
        figure(
            budget_title,
            budget_question,
            "percentunit",
            Query(f"1 - {_burn_rate(met, objective)}", now=True),
            steps=((None, "red"), (0.0, "orange"), (0.5, "green")),
        ),
    ]


def claims_by_outcome(where: str = HERE, width: int = 8) -> Panel:
    """Return the graph of claims by outcome. Arguments as in `promql.quantile` and `panels.graph`."""
    return graph(
        "Claims by outcome",
        "What are the outcomes of claims? lock-busy, unavailable and internal-error are failures, all others are"
        " answers: not-started, ended and paused by the coupon's rules, queued until its turn comes, replayed from the"
        " answer stored for the request's Idempotency-Key.",
        "reqps",
        Query(per_second("claimsvc_claims_total", "outcome", where), "{{outcome}}"),
        stacked=True,
        width=width,
    )


def _outcomes() -> list[Panel]:
    return [
        claims_by_outcome(COUPON),
        quantile_graph(
            "Latency of claims",
            "How long does a user wait for an answer, from a valid request to its outcome?",
            "claimsvc_claim_duration_seconds",
        ),
        heatmap(
            "Spread of latency",
            "Are all claims slow, or only some? Two bands have two causes: open an exemplar of each.",
            "claimsvc_claim_duration_seconds",
        ),
        graph(
            "Claims by coupon",
            "Which coupon is hot? The ten with the most claims; `other` is the sum of all but the busiest 100.",
            "reqps",
            Query(ten_most(per_second("claimsvc_claims_total", "coupon", COUPON)), "{{coupon}}"),
        ),
        graph(
            "Failed claims by coupon",
            "Claims of which coupon fail, and why? lock-busy: see Lock contention. unavailable: see Dependencies.",
            "reqps",
            Query(ten_most(per_second("claimsvc_claims_total", "coupon, outcome", _FAILED)), "{{coupon}} {{outcome}}"),
        ),
        graph(
            "p99 by outcome",
            "Which outcomes are slow? lock-busy takes 1.5 s by design. A quantile is an estimate within a bucket of the"
            " histogram, so it shows as up to 1.6 s.",
            "s",
            Query(quantile(0.99, "claimsvc_claim_duration_seconds", "outcome"), "{{outcome}}"),
        ),
    ]


def _stock() -> list[Panel]:
    left = "min by (coupon) (claimsvc_coupon_remaining{COUPON})"
    claimed = per_second("claimsvc_claims_total", "coupon", 'COUPON, outcome="claimed"')
    return [
        graph(
            "Stock left",
            "Which coupons are nearly sold out? The ten with the smallest remaining share.",
            "percentunit",
            Query(
                "bottomk(10, min by (coupon) (claimsvc_coupon_remaining{COUPON} / claimsvc_coupon_amount{COUPON}))",
                "{{coupon}}",
            ),
            most=1,
            width=6,
        ),
        graph(
            "Units left",
            "How many units of each coupon are left? The ten with the fewest. Each instance reads them every 2 s. Units"
            " that are held until confirmation do not count as left.",
            COUNT,
            Query(f"bottomk(10, {left})", "{{coupon}}"),
            width=6,
        ),
        graph(
            "Time until sold out",
            "When will each coupon be sold out at the current rate? The ten that are first. Coupons without claims have"
            " no line. Returned units and changes of the amount are not predicted.",
            "s",
            Query(f"bottomk(10, {left} / ({claimed} > 0))", "{{coupon}}"),
            width=6,
        ),
        graph(
            "Refused by their rules, by coupon",
            "Claims of which coupon are refused although stock may be left, and why? not-started: its period starts"
            " later. ended: its period has ended, or it was archived. paused: an operator has paused it. queue-full: as"
            " many wait as its queue allows. No line: none. This is not a failure, but it may have been configured by"
            " mistake.",
            "reqps",
            Query(
                ten_most(f"{per_second('claimsvc_claims_total', 'coupon, outcome', _REFUSED_BY_RULES)} > 0"),
                "{{coupon}} {{outcome}}",
            ),
            width=6,
        ),
    ]


def _requests() -> list[Panel]:
    return [
        graph(
            "Requests by status",
            "How does the service answer HTTP requests, of all routes?",
            "reqps",
            Query(per_second("claimsvc_http_requests_total", "status"), "{{status}}"),
            stacked=True,
        ),
        graph(
            "p99 by route",
            "Which route is slow, from a request's headers to its answer?",
            "s",
            Query(quantile(0.99, "claimsvc_http_request_duration_seconds", "route"), "{{route}}"),
        ),
        graph(
            "Claims by instance and strategy",
            "Does every instance get its share of the claims, and which strategies admit them?",
            "reqps",
            Query(per_second("claimsvc_claims_total", "instance, strategy", COUPON), "{{instance}} {{strategy}}"),
        ),
        graph(
            "Quotas",
            "How many requests exceed a quota, by user or by address? unknown: a master was late or down, so the"
            " request passed uncounted. A single line at 0: no quota is set, or there are no requests.",
            "reqps",
            Query(
                f"{per_second('claimsvc_quota_decisions_total', 'policy, result')} or vector(0)",
                "{{policy}} {{result}}",
            ),
            width=24,
        ),
    ]
