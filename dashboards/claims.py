"""Do users get their coupons? The objectives first, then what claims come to, then the stock."""

from collections.abc import Callable

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, figure, graph, heatmap, quantile_graph
from dashboards.promql import COUPON, per_second, quantile, ten_most

# The objectives are those of `rules/objectives.yml`.
_AVAILABILITY = 0.999
_LATENCY = 0.99
_LATENCY_SECONDS = 0.25

_CLAIMING = 'HERE, route="/api/coupons/claim", method="POST"'
FAILED = "lock-busy|unavailable|internal-error"
"""The outcomes that are failures of the service: answered with a 5xx."""
NOBODYS = "cancelled|unknown-coupon"
"""The outcomes that count for no objective: the client hung up, or no coupon has that name."""
AGAINST_THE_RULES = "not-started|ended|paused|not-eligible"
"""The outcomes of claims that a coupon's own rules refuse, with stock left or without."""

_FAILED = f'COUPON, outcome=~"{FAILED}"'
# All the rest, so that an outcome that is new counts as an answer until it is named here.
_DECIDED = f'HERE, outcome!~"{FAILED}|{NOBODYS}"'
_REFUSED_BY_RULES = f'COUPON, outcome=~"{AGAINST_THE_RULES}"'


def claims() -> Dashboard:
    return page(
        "claimsvc-claims",
        "Do users get their coupons, and how fast? Begin here; what is red is explained by Lock contention or"
        " Dependencies.",
        {
            "Objectives, over the time range shown": _objectives(),
            "Claims": _outcomes(),
            "Stock and rules": _stock(),
            "Requests": _requests(),
        },
    )


def _answered(over: str) -> str:
    """The share of claims that were answered with anything but a 5xx."""
    return (
        f'sum(rate(claimsvc_http_requests_total{{{_CLAIMING}, status!~"5.."}}[{over}]))'
        f" / (sum(rate(claimsvc_http_requests_total{{{_CLAIMING}}}[{over}])) > 0)"
    )


def _in_time(over: str) -> str:
    """The share of decided claims that were so in time."""
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
            "Which share of the claims asked for was answered without a 5xx? The objective is 99.9 % over 30 days."
            " Sold out, already claimed, paused, ended and the like are good answers.",
            "Availability budget left",
            "How much of the failures that the objective allows is left? 100 %: none happened. Below 0 the objective is"
            " missed for the range shown.",
            _answered,
            _AVAILABILITY,
        ),
        *_objective(
            "Decided within 250 ms",
            "Which share of the claims that were decided, by a coupon's stock or by its rules, was so within 250 ms?"
            " The objective is 99 % over 30 days.",
            "Latency budget left",
            "How much of the slow claims that the objective allows is left? Below 0 the objective is missed for the"
            " range shown.",
            _in_time,
            _LATENCY,
        ),
        graph(
            "Burn rate",
            "How many times faster than the objectives allow is the budget being used? At 1 it lasts exactly 30 days,"
            " at 14.4 just 2 days: that pages.",
            "none",
            Query(_burn_rate(_answered("$__rate_interval"), _AVAILABILITY), "availability"),
            Query(_burn_rate(_in_time("$__rate_interval"), _LATENCY), "latency"),
        ),
    ]


def _objective(
    title: str, question: str, budget_title: str, budget_question: str, share: Callable[[str], str], objective: float
) -> list[Panel]:
    """How well an objective is met, and what is left of its budget."""
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


def _outcomes() -> list[Panel]:
    return [
        graph(
            "Claims by outcome",
            "What do claims come to? lock-busy, unavailable and internal-error are failures; everything else is an"
            " answer: not-started, ended and paused by the coupon's rules, replayed from the one that is kept under"
            " the request's Idempotency-Key.",
            "reqps",
            Query(per_second("claimsvc_claims_total", "outcome", COUPON), "{{outcome}}"),
            stacked=True,
        ),
        quantile_graph(
            "Latency of claims",
            "How long does a user wait for an answer, from a valid request to its outcome?",
            "claimsvc_claim_duration_seconds",
        ),
        heatmap(
            "Spread of latency",
            "Are all claims slow, or only some? Two bands mean two reasons: open an exemplar of each.",
            "claimsvc_claim_duration_seconds",
        ),
        graph(
            "Claims by coupon",
            "Which coupon is hot? The ten that are claimed most; `other` is all that are not among the busiest 100.",
            "reqps",
            Query(ten_most(per_second("claimsvc_claims_total", "coupon", COUPON)), "{{coupon}}"),
        ),
        graph(
            "Failed claims by coupon",
            "Of which coupon do claims fail, and why? lock-busy: see Lock contention. unavailable: see Dependencies.",
            "reqps",
            Query(ten_most(per_second("claimsvc_claims_total", "coupon, outcome", _FAILED)), "{{coupon}} {{outcome}}"),
        ),
        graph(
            "p99 by outcome",
            "Is it success or refusal that is slow? lock-busy is told after 1.5 s by design; within a bucket of the"
            " histogram a quantile is an estimate, so it is read as up to 1.6 s.",
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
            "Which coupons are nearly gone? The ten of which the smallest part is left.",
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
            "How many units of each coupon are left? The ten with the fewest. Read every 2 s by each instance. A unit"
            " that is held until it is confirmed is not left; one that is given back is again.",
            COUNT,
            Query(f"bottomk(10, {left})", "{{coupon}}"),
            width=6,
        ),
        graph(
            "Time until sold out",
            "When is each coupon sold out, if it goes on like this? The ten that are soonest. Coupons that nobody gets"
            " now have no line. Units that are given back, and changes of the amount, are not foreseen.",
            "s",
            Query(f"bottomk(10, {left} / ({claimed} > 0))", "{{coupon}}"),
            width=6,
        ),
        graph(
            "Refused by their rules, by coupon",
            "Of which coupon are claims refused though stock may be left, and why? not-started: it begins later."
            " ended: its time is over, or it was archived. paused: somebody has paused it. No line: none. That is no"
            " failure, but somebody may have set it by mistake.",
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
            "What does the service answer over HTTP, everything included?",
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
            "Does every instance get its part of the claims, and by which strategy are they admitted?",
            "reqps",
            Query(per_second("claimsvc_claims_total", "instance, strategy", COUPON), "{{instance}} {{strategy}}"),
        ),
        graph(
            "Quotas",
            "Who is refused for asking too often, by user or by address? unknown: a master was late or down, so the"
            " request was let through. A single line at 0: no quota is set, or nobody asks.",
            "reqps",
            Query(
                f"{per_second('claimsvc_quota_decisions_total', 'policy, result')} or vector(0)",
                "{{policy}} {{result}}",
            ),
            width=24,
        ),
    ]
