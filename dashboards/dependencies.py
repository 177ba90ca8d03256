"""Is it Redis, PostgreSQL or the process itself?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.jobs import job_panels
from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, Steps, figure, graph, heatmap, quantile_graph, timeline
from dashboards.promql import COUPON, happened, per_second, quantile, ten_most

_CALL = "claimsvc_redis_call_seconds"
_TRANSACTION = "claimsvc_db_transaction_seconds"
_LAG = "claimsvc_event_loop_lag_seconds"

_NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
_MEMORY_USED = "claimsvc_redis_memory_bytes{HERE} / claimsvc_redis_memory_limit_bytes{HERE}"


def dependencies() -> Dashboard:
    return page(
        "claimsvc-dependencies",
        "Do claims wait for the masters, for PostgreSQL, or for the process itself? Whichever is slow here shows as"
        " waiting on the other two dashboards.",
        {
            "Now: what there is": _what_there_is(),
            "Now: how it does": _how_it_does(),
            "Redis masters": _masters(),
            "PostgreSQL": _database(),
            "Jobs": job_panels(),
            "Processes": _load_of_processes() + _life_of_processes(),
        },
    )


def _what_there_is() -> list[Panel]:
    return [
        figure(
            "Instances up",
            "How many instances can Prometheus scrape? Whether that is all of them is said beside it.",
            COUNT,
            Query("sum(up{HERE}) or vector(0)"),
            steps=((None, "red"), (1.0, "blue")),
        ),
        figure(
            "Instances missing",
            "How many instances that Prometheus knows of does it not reach? Anything but 0: the others take their"
            " claims.",
            COUNT,
            Query("count(up{HERE}) - sum(up{HERE})"),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Youngest instance",
            "How long has the instance run that was started last? Of several workers the youngest counts.",
            "s",
            Query("min(time() - max by (instance) (process_start_time_seconds{HERE}))"),
            steps=((None, "orange"), (300.0, "blue")),
        ),
        figure(
            "Restarts",
            "How often was an instance or a worker of it started again, in the time range shown? A pod that takes"
            " another's place has a name of its own: it is not counted here, but is the youngest instance.",
            COUNT,
            Query("sum(changes(process_start_time_seconds{HERE}[$__range]))", now=True),
            steps=((None, "green"), (1.0, "orange")),
        ),
        figure(
            "Masters that may still fail",
            "How many more masters may fail before no lock can be taken? 0: the next failure stops all claims under the"
            " lock. Below 0 they are stopped. As the instance sees it that sees the fewest.",
            COUNT,
            Query(
                "min(sum by (job, instance) (claimsvc_redis_master_up{HERE})"
                " - floor(count by (job, instance) (claimsvc_redis_master_up{HERE}) / 2) - 1)"
            ),
            steps=((None, "red"), (0.0, "orange"), (1.0, "green")),
        ),
        figure(
            "Redis memory used",
            "How much of what it may use does the fullest master use? At 100 % it refuses to be written to, and takes"
            " no lock. Without a maxmemory it is held against the memory of its machine.",
            "percentunit",
            Query(f"max({_MEMORY_USED})"),
            steps=((None, "green"), (0.75, "orange"), (0.9, "red")),
        ),
    ]


def _how_it_does() -> list[Panel]:
    return [
        figure(
            "Promises that almost broke",
            "How many transactions were rolled back because a promise would have been broken, by the processes of the"
            " time range shown? Counted since each was started. Anything but 0 is a defect: wake somebody.",
            COUNT,
            Query("sum(max_over_time(claimsvc_invariant_violations_total{HERE}[$__range]))", now=True),
            width=6,
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Transactions, p99",
            "How long does PostgreSQL take to decide a batch?",
            "s",
            Query(quantile(0.99, _TRANSACTION)),
            width=6,
            steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
        ),
        figure(
            "Calls of masters, p99",
            "How long does the slowest master take to answer?",
            "s",
            Query(f"max({quantile(0.99, _CALL, 'master')})"),
            width=6,
            steps=((None, "green"), (0.05, "orange"), (0.25, "red")),
        ),
        figure(
            "Event-loop lag, p99",
            "How late does the busiest process get round to what is due? All that it does is late by as much.",
            "s",
            Query(f"max({quantile(0.99, _LAG, 'instance')})"),
            width=6,
            steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
        ),
    ]


def _masters() -> list[Panel]:
    return [
        timeline(
            "Masters up, as each instance sees them",
            "Which master does not answer whom? Red: it does not. One instance alone sees it down if the network"
            " between them is at fault; all do if it is the master.",
            Query("min by (master, instance) (claimsvc_redis_master_up{HERE})", "{{master}} as {{instance}} sees it"),
            steps=((None, "red"), (1.0, "green")),
        ),
        graph(
            "Memory by master",
            "Is a master running out of memory? Locks need little, and each is gone after its time; what grows is"
            " somebody else's.",
            "percentunit",
            Query(f"max by (master) ({_MEMORY_USED})", "{{master}}"),
            width=12,
            most=1,
        ),
        *_p99_and_spread(
            "Calls by master, p99",
            "Which master is slow? A lock needs a majority, so one slow master of three costs little. One that hangs is"
            " given up after 0.5 s.",
            "master",
            "Spread of calls",
            "Are all calls of masters slow, or those of one? A band at the time-out is a master that hangs.",
            _CALL,
            width=8,
        ),
        graph(
            "Calls by master",
            "How much is each master asked? While claims come in, all should be asked the same. One that is down is"
            " asked for nothing but whether it is back, five times a second by each worker: while the service is quiet,"
            " that is more than the others, which are asked once.",
            "ops",
            Query(per_second(f"{_CALL}_count", "master"), "{{master}}"),
            width=8,
        ),
    ]


def _p99_and_spread(
    title: str, question: str, label: str, spread: str, spread_question: str, histogram: str, *, width: int
) -> list[Panel]:
    """The p99 of a histogram for each value of a label, and how all of it is spread."""
    return [
        graph(title, question, "s", Query(quantile(0.99, histogram, label), f"{{{{{label}}}}}"), width=width),
        heatmap(spread, spread_question, histogram, width=width),
    ]


def _database() -> list[Panel]:
    return [
        graph(
            "Connections by state",
            "Do claims wait for a connection? When as many are in use as the instance may have, the next transaction"
            " waits.",
            COUNT,
            Query("sum by (instance, state) (claimsvc_db_pool_connections{HERE})", "{{instance}} {{state}}"),
            Query("sum by (instance) (claimsvc_db_pool_limit{HERE})", "{{instance}} limit"),
            width=6,
        ),
        quantile_graph(
            "Transactions: quantiles",
            "How long does a transaction take that admits claims, waiting for a connection included?",
            _TRANSACTION,
            width=6,
        ),
        heatmap("Spread of transactions", "Is the database slow all the time, or now and then?", _TRANSACTION, width=6),
        graph(
            "Transactions by instance",
            "How many transactions does each instance make?",
            "ops",
            Query(per_second(f"{_TRANSACTION}_count", "instance"), "{{instance}}"),
            width=6,
        ),
        graph(
            "Drift of counters",
            "Which coupon's counter in Redis differed from PostgreSQL when it was last set right, and by how many"
            " units? Only the strategy `counter` has one. No line: none has drifted.",
            COUNT,
            Query("max by (coupon) (abs(claimsvc_counter_drift{COUPON}))", "{{coupon}}"),
            width=12,
        ),
        graph(
            "Counters set right",
            "Which coupon's counter is found wrong, and how often? Once is a crash that was cleaned up after; again and"
            " again is a defect.",
            COUNT,
            Query(
                ten_most(happened("claimsvc_drifts_mended_total", "$__rate_interval", "coupon", COUPON)), "{{coupon}}"
            ),
            width=12,
        ),
    ]


def _load_of_processes() -> list[Panel]:
    return [
        *_p99_and_spread(
            "Event-loop lag by instance, p99",
            "Which process is too busy to be in time?",
            "instance",
            "Spread of event-loop lag",
            "Is it a steady load that makes the processes late, or a stall now and then?",
            _LAG,
            width=6,
        ),
        graph(
            "CPU by instance",
            "How many cores does each instance use? A worker can use one; at that it is full.",
            "none",
            Query(per_second("process_cpu_seconds_total", "instance"), "{{instance}}"),
            width=6,
        ),
        graph(
            "Memory by instance",
            "Does an instance grow without end?",
            "bytes",
            Query("sum by (instance) (process_resident_memory_bytes{HERE})", "{{instance}}"),
            width=6,
        ),
    ]


def _life_of_processes() -> list[Panel]:
    return [
        graph(
            "File descriptors",
            "How near is an instance to its limit of open files, which connections are too? Of several workers it is"
            " the average.",
            "percentunit",
            Query("max by (instance) (process_open_fds{HERE} / process_max_fds{HERE})", "{{instance}}"),
            most=1,
        ),
        graph(
            "Time since start",
            "Does an instance start again and again? Of several workers the youngest counts.",
            "s",
            Query("time() - max by (instance) (process_start_time_seconds{HERE})", "{{instance}}"),
        ),
        graph(
            "Versions",
            "Which version runs on how many instances?",
            COUNT,
            Query("count by (version, python) (claimsvc_build_info{HERE})", "{{version}}, Python {{python}}"),
        ),
    ]
