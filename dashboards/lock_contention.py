"""The dashboard Lock contention: waits for locks, their holders, attempts, batches."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, Steps, figure, graph, heatmap, quantile_graph, timeline
from dashboards.promql import COUPON, happened, not_sold_out, per_second, quantile, ten_most

_WAIT = "claimsvc_lock_wait_seconds"
_HOLD = "claimsvc_lock_hold_seconds"
_HELD = per_second(f"{_HOLD}_sum", "coupon", COUPON)
_ATTEMPTS = "claimsvc_lock_attempts_total"
_SIZE = "claimsvc_batch_size"
# Waits that ended without the lock count too: otherwise the worst contention would not show.
_WAITED = 'COUPON, result=~"acquired|busy"'
_BUSY = 'COUPON, result="busy"'
_GAVE_UP = 'COUPON, outcome="lock-busy"'

_NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
_SOLD_OUT = " Coupons that are known to be sold out are excluded."


def lock_contention() -> Dashboard:
    return page(
        "claimsvc-lock-contention",
        "Which coupon is contended, and which instances wait for its lock or hold it? A claim that gives up waiting"
        " gets lock-busy and may be repeated.",
        {
            "Now, and over the time range shown": _now(),
            "Who holds": _who_holds(),
            "Waiting for the lock": _waiting(),
            "Holding the lock": _holding(),
            "Attempts": _attempts(),
            "Combining": _combining(),
            "Batches": _batches(),
        },
        collapsed={"Attempts", "Batches"},
    )


def _share_busy() -> str:
    """Return the share of attempts to take each coupon's lock that found it taken."""
    return f"{per_second(_ATTEMPTS, 'coupon', _BUSY)} / ({per_second(_ATTEMPTS, 'coupon', COUPON)} > 0)"


def _refused_unheld() -> str:
    """Select coupons whose lock is refused although no known instance holds it. Like ClaimsvcLockHeldByStranger.

    Both finished holds and current ones are considered: a lock that is not released has no duration yet.
    """
    held_now = "sum by (coupon) (avg_over_time(claimsvc_lock_held{COUPON}[$__rate_interval]))"
    unheld = f"({_share_busy()} > 0.5) unless on (coupon) ({_HELD} > 0.1) unless on (coupon) ({held_now} > 0.1)"
    return not_sold_out(unheld)


def _gave_up(over: str) -> str:
    return not_sold_out(happened("claimsvc_claims_total", over, "coupon", _GAVE_UP))


def _now() -> list[Panel]:
    return [
        figure(
            "Longest wait",
            "Which coupon's lock has the longest wait (p99)? From 0.5 s on, the first attempt has failed." + _SOLD_OUT,
            "s",
            Query(f"topk(1, {not_sold_out(quantile(0.99, _WAIT, 'coupon', _WAITED))})", "{{coupon}}", now=True),
            steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
        ),
        figure(
            "Gave up with stock left",
            "How many claims of coupons that are not sold out gave up waiting for a lock in the time range shown? If"
            " not 0, these users could have been served.",
            COUNT,
            Query(f"sum({_gave_up('$__range')}) or vector(0)", now=True),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Locks held by no known instance",
            "How many coupons' locks are refused although no instance that Prometheus scrapes holds them? If not 0,"
            " `claimsvc locks` shows the holders.",
            COUNT,
            Query(f"count({_refused_unheld()}) or vector(0)"),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Leases lost",
            "How many locks had expired or changed hands when their holder released them, in the time range shown?"
            " A lease is the right to a lock for 20 s (its TTL). Nothing is oversold, but a holder stalled for longer"
            " than that, or a master lost data.",
            COUNT,
            Query(f"sum({happened('claimsvc_lock_lost_total', '$__range', 'coupon')})", now=True),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Leaders waiting",
            "How many workers are waiting for a coupon's lock, each for all its claims of the coupon?",
            COUNT,
            Query("sum(claimsvc_lock_waiters{HERE})"),
        ),
        figure(
            "Claims waiting",
            "How many claims are waiting for an answer?",
            COUNT,
            Query("sum(claimsvc_claims_waiting{HERE})"),
        ),
    ]


def _who_holds() -> list[Panel]:
    return [
        timeline(
            "Who holds, at each scrape",
            "Which instance held which coupon's lock when it was scraped? For a lock that changes hands every few ms"
            " this is a sample. Instances are scraped at different times, so a lock may show at two of them without"
            " having two holders. A bar without gaps is a lock that is not released.",
            Query(
                "sum by (coupon, instance) (claimsvc_lock_held{COUPON}) and on (coupon) " + ten_most(_HELD),
                "{{coupon}} @ {{instance}}",
            ),
            steps=((None, "transparent"), (1.0, "blue")),
        ),
        graph(
            "Share of time held, by coupon",
            "Which lock is the bottleneck? A coupon whose lock is held all the time (100 %) does not sell faster with"
            " more instances. Above 100 %: `other`, which is many coupons, or two holders.",
            "percentunit",
            Query(ten_most(_HELD), "{{coupon}}"),
            width=6,
        ),
        graph(
            "Share of time held, by instance",
            "Does every instance get its turn? Equal shares are fair. An instance near 0 with waiting claims is"
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
        "How long does a batch wait for its coupon's lock, until it takes it or gives up? It gives up after 1.5 s. A"
        " quantile is an estimate within a bucket of the histogram, so this shows as up to 1.6 s.",
        verb="a wait take",
        leave_out_sold_out=True,
    )


def _holding() -> list[Panel]:
    return _durations(
        "Hold",
        _HOLD,
        COUPON,
        "How long is a lock held? Some ms are normal; a slow database shows here. An instance keeps a lock for a slice"
        " (2.5 ms, CLAIMSVC_LOCK_SLICE_SECONDS) while more claims of its coupon arrive, then hands it over.",
        verb="a hold take",
        leave_out_sold_out=False,
    )


def _durations(
    title: str, histogram: str, where: str, question: str, *, verb: str, leave_out_sold_out: bool
) -> list[Panel]:
    """Return the panels of a duration: quantiles, heatmap, p99 by coupon and by instance."""
    by_coupon = quantile(0.99, histogram, "coupon", where)
    return [
        quantile_graph(f"{title}: quantiles", question, histogram, where, width=6),
        heatmap(
            f"{title}: spread",
            f"Does {verb} long every time, or only occasionally?",
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
            f"On which instance does {verb} longest? If one differs from the others, the cause is there.",
            "s",
            Query(quantile(0.99, histogram, "instance", where), "{{instance}}"),
            width=6,
        ),
    ]


def _attempts() -> list[Panel]:
    return [
        graph(
            "Attempts by result",
            "Do attempts to take a lock succeed? busy: another instance holds it. unavailable: a majority of the"
            " masters does not answer.",
            "ops",
            Query(per_second(_ATTEMPTS, "result", COUPON), "{{result}}"),
            stacked=True,
            width=6,
        ),
        graph(
            "Busy attempts by coupon",
            "Which coupon is contended? The share of attempts that found its lock taken." + _SOLD_OUT,
            "percentunit",
            Query(ten_most(not_sold_out(_share_busy())), "{{coupon}}"),
            width=6,
            most=1,
        ),
        graph(
            "Refused, though no known instance holds it",
            "Which coupon's lock is refused (more than half of the attempts) while the instances that Prometheus"
            " scrapes hold it for less than a tenth of the time? No line: none. `claimsvc locks` shows the holder."
            + _SOLD_OUT,
            "percentunit",
            Query(ten_most(_refused_unheld()), "{{coupon}}"),
            width=6,
            most=1,
        ),
        graph(
            "Retries by coupon",
            "For which coupon do instances wait the full 0.5 s between attempts without a hint that the lock is free?"
            " Few retries for many busy attempts: the hand-over works." + _SOLD_OUT,
            "ops",
            Query(ten_most(not_sold_out(per_second("claimsvc_lock_retries_total", "coupon", COUPON))), "{{coupon}}"),
            width=6,
        ),
        graph(
            "Gave up, by coupon",
            "Claims of which coupons give up waiting for the lock?" + _SOLD_OUT,
            COUNT,
            Query(ten_most(_gave_up("$__rate_interval")), "{{coupon}}"),
        ),
        graph(
            "Leases lost, by coupon",
            "Which coupons' locks were lost while they were held? Their lease, of 20 s, was over, or masters lost it.",
            COUNT,
            Query(ten_most(happened("claimsvc_lock_lost_total", "$__rate_interval", "coupon")), "{{coupon}}"),
        ),
        graph(
            "Hints",
            "Do instances wake each other? A hint tells a waiting instance that its lock is free now, so that it need"
            " not wait for its next attempt. sent: a hint to a waiting instance; used: it arrived in time; late: the"
            " instance no longer waited.",
            "ops",
            Query(per_second("claimsvc_lock_hints_total", "result"), "{{result}}"),
        ),
    ]


def _combining() -> list[Panel]:
    return [
        graph(
            "Combined claims by instance",
            "Who decides for whom? Combining: an instance that finds a lock held hands its claims to the holder, which"
            " decides them with its own. origin: handed over; holder: decided for others."
            " Each instance is both in turn.",
            "ops",
            Query(per_second("claimsvc_combined_claims_total", "instance, role", COUPON), "{{instance}} {{role}}"),
        ),
        quantile_graph(
            "Wait for a holder",
            "How long are claims on their way that were handed over? Its transaction, and two messages: some"
            " milliseconds. After 0.5 s the origin decides for itself.",
            "claimsvc_combine_wait_seconds",
            COUPON,
        ),
        graph(
            "Taken back by the origin",
            "How often did no answer come in time? undecided: the origin decided for itself; decided: only the answer"
            " was lost. Some at each restart are normal.",
            COUNT,
            Query(
                happened("claimsvc_combine_taken_back_total", "$__rate_interval", "coupon, found"),
                "{{coupon}} {{found}}",
            ),
        ),
    ]


def _batches() -> list[Panel]:
    return [
        graph(
            "Claims waiting by instance",
            "On which instance do claims queue up?",
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
            "How many claims share a lock and a transaction? Batches grow under contention, which keeps a hot coupon"
            " fast. The average is exact; the quantiles are estimates within a bucket (1, 2, 4, 8 ...), rounded up.",
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
