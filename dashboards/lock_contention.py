"""Who waits for which coupon's lock, for how long, and who has it meanwhile?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import page
from dashboards.panels import Panel, Query, figure, graph, heatmap, timeline
from dashboards.promql import COUPON, buckets, per_second, quantile

_WAIT = "claimsvc_lock_wait_seconds"
_HOLD = "claimsvc_lock_hold_seconds"
# Waits that end by giving up count: without them the worst contention would look like the second worst.
_WAITED = 'COUPON, result=~"acquired|busy"'
_BUSY = 'COUPON, result="busy"'


def _spread(title: str, histogram: str, where: str, how_long: str, long: str) -> list[Panel]:
    """Quantiles, heatmap, and p99 by coupon and by instance, of waiting or of holding.

    Args:
        title: of the four panels.
        histogram, where: see `promql.quantile`.
        how_long: the question of the quantiles.
        long: what takes long, as in "where does ... longest".
    """
    return [
        graph(
            f"{title}: quantiles",
            how_long,
            "s",
            *(Query(quantile(share, histogram, where=where), f"p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
            width=6,
        ),
        heatmap(
            f"{title}: spread",
            f"Does {long} long every time, or now and then?",
            "s",
            buckets(histogram, where),
            width=6,
        ),
        graph(
            f"{title}: p99 by coupon",
            f"For which coupon does {long} longest? The ten worst.",
            "s",
            Query(f"topk(10, {quantile(0.99, histogram, 'coupon', where)})", "{{coupon}}"),
            width=6,
        ),
        graph(
            f"{title}: p99 by instance",
            f"On which instance does {long} longest? One that differs from the rest has a reason of its own.",
            "s",
            Query(quantile(0.99, histogram, "instance", where), "{{instance}}"),
            width=6,
        ),
    ]


def _given_up(over: str) -> str:
    return (
        f'sum by (coupon) (increase(claimsvc_claims_total{{COUPON, outcome="lock-busy"}}[{over}]))'
        " unless on (coupon) (min by (coupon) (claimsvc_coupon_remaining{COUPON}) == 0)"
    )


def lock_contention() -> Dashboard:
    return page(
        "claimsvc-lock-contention",
        "Which coupon is contended, who waits for its lock and who holds it? Nobody is refused stock by the lock: who"
        " gives up is told lock-busy and may ask again.",
        {
            "Now, and over the time range shown": [
                figure(
                    "Longest wait",
                    "For which coupon's lock is the wait longest (p99)? From 0.5 s on, attempts are made in vain.",
                    "s",
                    Query(f"topk(1, {quantile(0.99, _WAIT, 'coupon', _WAITED)})", "{{coupon}}"),
                    width=6,
                    steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
                ),
                figure(
                    "Gave up with stock left",
                    "How many claims gave up waiting for a lock, in the time range shown, of coupons that are not sold"
                    " out? Anything but 0 are users who could have been served.",
                    "short",
                    Query(f"sum({_given_up('$__range')}) or vector(0)"),
                    steps=((None, "green"), (1.0, "red")),
                ),
                figure(
                    "Leases lost",
                    "How many locks were another's, or nobody's, when their holder gave them back, in the time range"
                    " shown? Nothing is oversold for it, but a holder was stalled beyond the TTL or a master forgot its"
                    " data.",
                    "short",
                    Query("sum(increase(claimsvc_lock_lost_total{COUPON}[$__range]))"),
                    steps=((None, "green"), (1.0, "red")),
                ),
                figure(
                    "Leaders waiting",
                    "How many workers wait for some coupon's lock at this moment, each for all its claims?",
                    "short",
                    Query("sum(claimsvc_lock_waiters{HERE})"),
                ),
                figure(
                    "Claims waiting",
                    "How many claims have no answer yet, at this moment?",
                    "short",
                    Query("sum(claimsvc_claims_waiting{HERE})"),
                ),
            ],
            "Who holds": [
                timeline(
                    "Who holds now",
                    "Which instance holds which coupon's lock? Seen at each scrape, so of a lock that is handed over"
                    " every few ms it is a sample; a bar without a gap is a lock that is not given back.",
                    "none",
                    Query(
                        "sum by (coupon, instance) (claimsvc_lock_held{COUPON})"
                        " and on (coupon) topk(10, sum by (coupon) (rate(claimsvc_lock_hold_seconds_sum{COUPON}"
                        "[$__rate_interval])))",
                        "{{coupon}} @ {{instance}}",
                    ),
                    width=12,
                ),
                graph(
                    "Share of time held, by coupon",
                    "Which lock is the bottleneck? One that is held all the time (100 %) sells no faster with more"
                    " instances. Above 100 %: `other`, which is many coupons, or two holders.",
                    "percentunit",
                    Query(f"topk(10, {per_second('claimsvc_lock_hold_seconds_sum', 'coupon', COUPON)})", "{{coupon}}"),
                    width=6,
                ),
                graph(
                    "Share of time held, by instance",
                    "Does every instance get its turn? Equal shares are fair; an instance near 0 that has claims"
                    " waiting is starved.",
                    "percentunit",
                    Query(per_second("claimsvc_lock_hold_seconds_sum", "instance", COUPON), "{{instance}}"),
                    width=6,
                ),
            ],
            "Waiting for the lock": _spread(
                "Wait",
                _WAIT,
                _WAITED,
                "How long does a batch wait for its coupon's lock, until it has it or gives up?",
                "it wait",
            ),
            "Holding the lock": _spread(
                "Hold",
                _HOLD,
                COUPON,
                "How long is a lock held? It should be some ms; a slow database shows here.",
                "holding take",
            ),
            "Attempts": [
                graph(
                    "Attempts by result",
                    "Do attempts to take a lock succeed? busy: another has it. unavailable: a majority of the masters"
                    " does not answer.",
                    "ops",
                    Query(per_second("claimsvc_lock_attempts_total", "result", COUPON), "{{result}}"),
                    stacked=True,
                ),
                graph(
                    "Busy attempts by coupon",
                    "Which coupon is contended? The share of its attempts that found another holding the lock.",
                    "percentunit",
                    Query(
                        f"topk(10, {per_second('claimsvc_lock_attempts_total', 'coupon', _BUSY)}"
                        f" / ({per_second('claimsvc_lock_attempts_total', 'coupon', COUPON)} > 0))",
                        "{{coupon}}",
                    ),
                    most=1,
                ),
                graph(
                    "Retries by coupon",
                    "For which coupon does a whole pause of 0.5 s pass without a hint? Few retries for many busy"
                    " attempts: the hand-over works.",
                    "ops",
                    Query(f"topk(10, {per_second('claimsvc_lock_retries_total', 'coupon', COUPON)})", "{{coupon}}"),
                ),
                graph(
                    "Gave up, by coupon",
                    "Of which coupon that is not known to be sold out do claims give up waiting?",
                    "short",
                    Query(f"topk(10, {_given_up('$__rate_interval')})", "{{coupon}}"),
                ),
                graph(
                    "Leases lost, by coupon",
                    "Whose lock was lost while it was held?",
                    "short",
                    Query(
                        "topk(10, sum by (coupon) (increase(claimsvc_lock_lost_total{COUPON}[$__rate_interval])))",
                        "{{coupon}}",
                    ),
                ),
                graph(
                    "Hints",
                    "Do instances wake each other? sent: a waiting one was woken; used: it came in time; late: nobody"
                    " waited any more.",
                    "ops",
                    Query(per_second("claimsvc_lock_hints_total", "result"), "{{result}}"),
                ),
            ],
            "Batches": [
                graph(
                    "Claims waiting by instance",
                    "On which instance do claims pile up?",
                    "short",
                    Query("sum by (instance) (claimsvc_claims_waiting{HERE})", "{{instance}}"),
                    width=6,
                ),
                graph(
                    "Leaders waiting by instance",
                    "On which instance do workers wait for locks, each for all its claims of a coupon?",
                    "short",
                    Query("sum by (instance) (claimsvc_lock_waiters{HERE})", "{{instance}}"),
                    width=6,
                ),
                graph(
                    "Batch size",
                    "How many claims share a lock and a transaction? Larger under contention: that is what keeps a hot"
                    " coupon fast.",
                    "short",
                    *(Query(quantile(share, "claimsvc_batch_size"), f"p{share * 100:g}") for share in (0.5, 0.99)),
                    width=6,
                ),
                heatmap(
                    "Spread of batch sizes",
                    "Are there many small batches or few large ones?",
                    "short",
                    buckets("claimsvc_batch_size"),
                    width=6,
                ),
            ],
        },
    )
