"""Panels of queues: what waits, how fast it is started, and what becomes of it."""

from dashboards.panels import COUNT, Panel, Query, graph, quantile_graph
from dashboards.promql import COUPON, per_second, ten_most

# Every instance reads the same queues, so the gauges are not summed.
_SAME = " All instances read the same queues, every few seconds."


def queue_panels() -> list[Panel]:
    """Return the panels of queues, for the dashboard Claims."""
    return [*_waiting(), *_started(), *_stopped()]


def _waiting() -> list[Panel]:
    return [
        graph(
            "Tickets waiting",
            "How many claims wait in the queue of each coupon? The ten longest queues." + _SAME,
            COUNT,
            _greatest("claimsvc_tickets_waiting{COUPON}"),
            width=6,
        ),
        graph(
            "Tickets started",
            "How fast are waiting claims started? The pace of a queue is at most its rate; less means that its"
            " concurrency is used up, or that nothing waits.",
            "reqps",
            Query(ten_most(per_second("claimsvc_ticket_wait_seconds_count", "coupon", COUPON)), "{{coupon}}"),
            width=6,
        ),
        graph(
            "Longest wait in a queue",
            "How long has the first ticket of each queue waited?" + _SAME,
            "s",
            _greatest("claimsvc_ticket_longest_wait_seconds{COUPON}"),
            width=6,
        ),
        graph(
            "Longest wait, of what is allowed",
            "Will tickets expire? At 100 % the first one has waited for as long as its queue allows." + _SAME,
            "percentunit",
            _greatest("claimsvc_ticket_longest_wait_ratio{COUPON}"),
            width=6,
        ),
    ]


def _started() -> list[Panel]:
    return [
        quantile_graph(
            "Wait until the start",
            "How long does a ticket wait from joining the queue until its claim is begun?",
            "claimsvc_ticket_wait_seconds",
            COUPON,
        ),
        graph(
            "Ends of tickets",
            "What becomes of tickets? expired: they waited too long. dead: the service failed too often to decide them."
            " refused: a claim would have been, too.",
            "reqps",
            Query(per_second("claimsvc_tickets_total", "end", COUPON), "{{end}}"),
            stacked=True,
        ),
        quantile_graph(
            "Lag of dispatching",
            "How much later than the pace allows are tickets started? Milliseconds are usual.",
            "claimsvc_ticket_dispatch_lag_seconds",
        ),
    ]


def _stopped() -> list[Panel]:
    return [
        graph(
            "Time without a start",
            "For how long have tickets waited and none was started, though nobody paused the queue, and the coupon has"
            " started and is not sold out? More than some seconds: dispatching is stalled.",
            "s",
            _greatest("claimsvc_queue_stalled_seconds{COUPON}"),
            width=6,
        ),
        graph(
            "Queues stopped, by reason",
            "In how many queues do tickets wait and none is started, and why? paused: by an operator. not-started: the"
            " coupon starts later. sold-out: they wait for units that come back. unavailable: PostgreSQL or a majority"
            " of the masters does not answer; they go on by themselves.",
            COUNT,
            Query("max by (reason) (claimsvc_queues_stopped{HERE})", "{{reason}}"),
            width=6,
        ),
        graph(
            "Dead letters",
            "How much did the service fail to do, so that an operator has to decide?",
            COUNT,
            Query("max by (kind) (claimsvc_dead_letters{HERE})", "{{kind}}"),
            width=6,
        ),
        graph(
            "Age of what is known of queues",
            "How long ago has each instance read the queues? More than some seconds: what it tells of them is old.",
            "s",
            Query(
                "time() - max by (instance) (claimsvc_queues_sampled_timestamp_seconds{HERE})",
                "{{instance}}",
            ),
            width=6,
        ),
    ]


def _greatest(gauge: str) -> Query:
    return Query(ten_most(f"max by (coupon) ({gauge})"), "{{coupon}}")
