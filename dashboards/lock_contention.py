"""Who waits for which coupon's lock, for how long, and who has it meanwhile?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, Steps, figure, graph, heatmap, quantile_graph, timeline
from dashboards.promql import COUPON, happened, not_sold_out, per_second, quantile, ten_most

_WAIT = "claimsvc_lock_wait_seconds"
_HOLD = "claimsvc_lock_hold_seconds"
_HELD = per_second(f"{_HOLD}_sum", "coupon", COUPON)
_ATTEMPTS = "claimsvc_lock_attempts_total"
_SIZE = "claimsvc_batch_size"
# Waits that end by giving up count: without them the worst contention would look like the second worst.
_WAITED = 'COUPON, result=~"acquired|busy"'
_BUSY = 'COUPON, result="busy"'
_GAVE_UP = 'COUPON, outcome="lock-busy"'

_NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
_SOLD_OUT = " Coupons that are known to be sold out are left out: nobody is refused stock there."


def lock_contention() -> Dashboard:
    return page(
        "claimsvc-lock-contention",
        "Which coupon is contended, who waits for its lock and who holds it? Nobody is refused stock by the lock: who"
        " gives up is told lock-busy and may ask again.",
        {
            "Now, and over the time range shown": _now(),
            "Who holds": _who_holds(),
            "Waiting for the lock": _waiting(),
            "Holding the lock": _holding(),
            "Attempts": _attempts(),
            "Batches": _batches(),
        },
    )


def _share_busy() -> str:
    """Of the attempts to take each coupon's lock, the share that found another holding it."""
    return f"{per_second(_ATTEMPTS, 'coupon', _BUSY)} / ({per_second(_ATTEMPTS, 'coupon', COUPON)} > 0)"


def _refused_unheld() -> str:
    """Those of which nobody known held the lock, by what was given back and by what is held. As the recording rule."""
    held_now = "sum by (coupon) (avg_over_time(claimsvc_lock_held{COUPON}[$__rate_interval]))"
    nobody = f"({_share_busy()} > 0.5) unless on (coupon) ({_HELD} > 0.1) unless on (coupon) ({held_now} > 0.1)"
    return not_sold_out(nobody)


def _gave_up(over: str) -> str:
    return not_sold_out(happened("claimsvc_claims_total", over, "coupon", _GAVE_UP))


def _now() -> list[Panel]:
    return [
        figure(
            "Longest wait",
            "For which coupon's lock is the wait longest (p99)? From 0.5 s on, attempts are made in vain." + _SOLD_OUT,
            "s",
            Query(f"topk(1, {not_sold_out(quantile(0.99, _WAIT, 'coupon', _WAITED))})", "{{coupon}}", now=True),
            steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
        ),
        figure(
            "Gave up with stock left",
            "How many claims gave up waiting for a lock, in the time range shown, of coupons that are not sold out?"
            " Anything but 0 are users who could have been served.",
            COUNT,
            Query(f"sum({_gave_up('$__range')}) or vector(0)", now=True),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Locks that nobody known holds",
            "Of how many coupons are claims refused the lock though no instance that Prometheus sees holds it? Anything"
            " but 0: `claimsvc locks` says who does.",
            COUNT,
            Query(f"count({_refused_unheld()}) or vector(0)"),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Leases lost",
            "How many locks were another's, or nobody's, when their holder gave them back, in the time range shown?"
            " Nothing is oversold for it, but a holder was stalled beyond the TTL or a master forgot its data.",
            COUNT,
            Query(f"sum({happened('claimsvc_lock_lost_total', '$__range', 'coupon')})", now=True),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Leaders waiting",
            "How many workers wait for some coupon's lock at this moment, each for all its claims?",
            COUNT,
            Query("sum(claimsvc_lock_waiters{HERE})"),
        ),
        figure(
            "Claims waiting",
            "How many claims have no answer yet, at this moment?",
            COUNT,
            Query("sum(claimsvc_claims_waiting{HERE})"),
        ),
    ]


def _who_holds() -> list[Panel]:
    return [
        timeline(
            "Who holds, at each scrape",
            "Which instance held which coupon's lock when it was scraped? Of a lock that is handed over every few ms"
            " that is a sample. Instances are scraped at different moments, so a lock that has changed hands in between"
            " shows at two of them: that is no second holder. A bar without a gap is a lock that is not given back.",
            Query(
                "sum by (coupon, instance) (claimsvc_lock_held{COUPON}) and on (coupon) " + ten_most(_HELD),
                "{{coupon}} @ {{instance}}",
            ),
            steps=((None, "transparent"), (1.0, "blue")),
        ),
        graph(
            "Share of time held, by coupon",
            "Which lock is the bottleneck? One that is held all the time (100 %) sells no faster with more instances."
            " Above 100 %: `other`, which is many coupons, or two holders.",
            "percentunit",
            Query(ten_most(_HELD), "{{coupon}}"),
            width=6,
        ),
        graph(
            "Share of time held, by instance",
            "Does every instance get its turn? Equal shares are fair; an instance near 0 that has claims waiting is"
            " starved.",
            "percentunit",
            Query(per_second(f"{_HOLD}_sum", "instance", COUPON), "{{instance}}"),
            width=6,
        ),
    ]


def _waiting() -> list[Panel]:
    return _durations(
        "Wait",
        _WAIT,
        _WAITED,
        "How long does a batch wait for its coupon's lock, until it has it or gives up? It gives up after 1.5 s;"
        " within a bucket of the histogram a quantile is an estimate, so that is read as up to 1.6 s.",
        verb="it wait",
        leave_out_sold_out=True,
    )


def _holding() -> list[Panel]:
    return _durations(
        "Hold",
        _HOLD,
        COUPON,
        "How long is a lock held? It should be some ms; a slow database shows here.",
        verb="holding take",
        leave_out_sold_out=False,
    )


def _durations(
    title: str, histogram: str, where: str, question: str, *, verb: str, leave_out_sold_out: bool
) -> list[Panel]:
    """How long something takes: its quantiles, its spread, and for whom and where it is longest."""
    by_coupon = quantile(0.99, histogram, "coupon", where)
    return [
        quantile_graph(f"{title}: quantiles", question, histogram, where, width=6),
        heatmap(
            f"{title}: spread",
            f"Does {verb} long every time, or now and then?",
            histogram,
            where,
            width=6,
        ),
        graph(
            f"{title}: p99 by coupon",
            f"For which coupon does {verb} longest? The ten worst." + (_SOLD_OUT if leave_out_sold_out else ""),
            "s",
            Query(ten_most(not_sold_out(by_coupon) if leave_out_sold_out else by_coupon), "{{coupon}}"),
            width=6,
        ),
        graph(
            f"{title}: p99 by instance",
            f"On which instance does {verb} longest? One that differs from the rest has a reason of its own.",
            "s",
            Query(quantile(0.99, histogram, "instance", where), "{{instance}}"),
            width=6,
        ),
    ]


def _attempts() -> list[Panel]:
    return [
        graph(
            "Attempts by result",
            "Do attempts to take a lock succeed? busy: another has it. unavailable: a majority of the masters does not"
            " answer.",
            "ops",
            Query(per_second(_ATTEMPTS, "result", COUPON), "{{result}}"),
            stacked=True,
            width=6,
        ),
        graph(
            "Busy attempts by coupon",
            "Which coupon is contended? The share of its attempts that found another holding the lock." + _SOLD_OUT,
            "percentunit",
            Query(ten_most(not_sold_out(_share_busy())), "{{coupon}}"),
            width=6,
            most=1,
        ),
        graph(
            "Refused, though nobody known holds it",
            "Which coupon's lock is refused to us (busy attempts: more than half) while the instances that Prometheus"
            " sees hold it for less than a tenth of the time? No line: none. `claimsvc locks` says who holds it."
            + _SOLD_OUT,
            "percentunit",
            Query(ten_most(_refused_unheld()), "{{coupon}}"),
            width=6,
            most=1,
        ),
        graph(
            "Retries by coupon",
            "For which coupon does a whole pause of 0.5 s pass without a hint? Few retries for many busy attempts: the"
            " hand-over works." + _SOLD_OUT,
            "ops",
            Query(ten_most(not_sold_out(per_second("claimsvc_lock_retries_total", "coupon", COUPON))), "{{coupon}}"),
            width=6,
        ),
        graph(
            "Gave up, by coupon",
            "Of which coupon that is not known to be sold out do claims give up waiting?",
            COUNT,
            Query(ten_most(_gave_up("$__rate_interval")), "{{coupon}}"),
        ),
        graph(
            "Leases lost, by coupon",
            "Whose lock was lost while it was held?",
            COUNT,
            Query(ten_most(happened("claimsvc_lock_lost_total", "$__rate_interval", "coupon")), "{{coupon}}"),
        ),
        graph(
            "Hints",
            "Do instances wake each other? sent: a waiting one was woken; used: it came in time; late: nobody waited"
            " any more.",
            "ops",
            Query(per_second("claimsvc_lock_hints_total", "result"), "{{result}}"),
        ),
    ]


def _batches() -> list[Panel]:
    return [
        graph(
            "Claims waiting by instance",
            "On which instance do claims pile up?",
            COUNT,
            Query("sum by (instance) (claimsvc_claims_waiting{HERE})", "{{instance}}"),
            width=6,
        ),
        graph(
            "Leaders waiting by instance",
            "On which instance do workers wait for locks, each for all its claims of a coupon?",
            COUNT,
            Query("sum by (instance) (claimsvc_lock_waiters{HERE})", "{{instance}}"),
            width=6,
        ),
        graph(
            "Batch size",
            "How many claims share a lock and a transaction? Larger under contention: that is what keeps a hot coupon"
            " fast. The average is exact; the quantiles are estimates within a bucket (1, 2, 4, 8 ...), rounded up to"
            " whole claims.",
            "none",
            Query(f"{_per_second_of_all(f'{_SIZE}_sum')} / ({_per_second_of_all(f'{_SIZE}_count')} > 0)", "average"),
            *(Query(f"ceil({quantile(share, _SIZE)})", f"p{share * 100:g}") for share in (0.5, 0.99)),
            width=6,
        ),
        heatmap(
            "Spread of batch sizes",
            "Are there many small batches or few large ones?",
            _SIZE,
            unit=COUNT,
            width=6,
        ),
    ]


def _per_second_of_all(counter: str) -> str:
    return f"sum(rate({counter}{{HERE}}[$__rate_interval]))"
