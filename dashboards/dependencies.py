"""The dashboard Dependencies: Redis masters, PostgreSQL, jobs, processes."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.jobs import job_panels
from dashboards.page import page
from dashboards.panels import COUNT, Panel, Query, Steps, figure, graph, heatmap, quantile_graph, timeline
from dashboards.promql import HERE, UP, happened, per_second, quantile, ten_most
from dashboards.readiness import readiness_panels

_CALL = "claimsvc_redis_call_seconds"
_TRANSACTION = "claimsvc_db_transaction_seconds"
_LAG = "claimsvc_event_loop_lag_seconds"

_NONE_IS_GOOD: Steps = ((None, "green"), (1.0, "red"))
_MEMORY_USED = "claimsvc_redis_memory_bytes{HERE} / claimsvc_redis_memory_limit_bytes{HERE}"


def dependencies() -> Dashboard:
    return page(
        "claimsvc-dependencies",
        "Do claims wait for the masters, for PostgreSQL, or for the process itself? What is slow here shows as waiting"
        " on the other two dashboards.",
        {
            "Now: what there is": _what_there_is(),
            "Now: how it does": _how_it_does(),
            "Readiness": readiness_panels(),
            "Redis masters": _masters(),
            "PostgreSQL": _database(),
            "Jobs": job_panels(),
            "Processes": _load_of_processes() + _life_of_processes(),
        },
        collapsed={"Jobs", "Processes"},
        by_coupon=False,
    )


def masters_that_may_still_fail() -> Panel:
    """Return the figure of that."""
    return figure(
        "Masters that may still fail",
        "How many more masters may fail before locks cannot be taken? 0: the next failure stops all claims under the"
        " lock. Below 0 they are stopped. From the instance that reaches the fewest masters.",
        COUNT,
        Query(
            "min(sum by (job, instance) (claimsvc_redis_master_up{HERE})"
            " - floor(count by (job, instance) (claimsvc_redis_master_up{HERE}) / 2) - 1)"
        ),
        steps=((None, "red"), (0.0, "orange"), (1.0, "green")),
    )


def _what_there_is() -> list[Panel]:
    return [
        figure(
            "Instances up",
            "How many instances can Prometheus scrape? The next panel shows whether these are all.",
            COUNT,
            Query(f"sum({UP}) or vector(0)"),
            steps=((None, "red"), (1.0, "blue")),
        ),
        figure(
            "Instances missing",
            "How many known instances can Prometheus not scrape? If not 0, the other instances take their claims.",
            COUNT,
            Query(f"count({UP}) - sum({UP})"),
            steps=_NONE_IS_GOOD,
        ),
        figure(
            "Youngest instance",
            "How long has the instance that started last been running? Of several workers, the youngest counts.",
            "s",
            Query("min(time() - max by (instance) (process_start_time_seconds{HERE}))"),
            steps=((None, "orange"), (300.0, "blue")),
        ),
        figure(
            "Restarts",
            "How often was an instance or one of its workers restarted in the time range shown? A pod that replaces"
            " another has a new name: it is not counted here, but shows as the youngest instance.",
            COUNT,
            Query("sum(changes(process_start_time_seconds{HERE}[$__range]))", now=True),
            steps=((None, "green"), (1.0, "orange")),
        ),
        masters_that_may_still_fail(),
        figure(
            "Redis memory used",
            "Which share of its memory does the fullest master use? At 100 % it refuses writes, and so locks. Without"
            " maxmemory it is the share of its machine's memory.",
            "percentunit",
            Query(f"max({_MEMORY_USED})"),
            steps=((None, "green"), (0.75, "orange"), (0.9, "red")),
        ),
    ]


def _how_it_does() -> list[Panel]:
    return [
        figure(
            "Invariant violations",
            "How many transactions were rolled back because they would have violated an invariant? Of the processes in"
            " the time range shown, counted since their start. Anything but 0 is a defect that needs attention now.",
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
            "How late does the busiest process run what is due? Everything it does is delayed by this.",
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
            "Which instances get no answer from which masters? Red: no answer. If only one instance sees a master down,"
            " the network between them is at fault; if all do, the master is.",
            Query("min by (master, instance) (claimsvc_redis_master_up{HERE})", "{{master}} as {{instance}} sees it"),
            steps=((None, "red"), (1.0, "green")),
        ),
        graph(
            "Memory by master",
            "Is a master running out of memory? Locks need little and expire. Growth comes from something else.",
            "percentunit",
            Query(f"max by (master) ({_MEMORY_USED})", "{{master}}"),
            width=12,
            most=1,
        ),
        *_p99_and_spread(
            "Calls by master, p99",
            "Which master is slow? A lock needs a majority, so one slow master of three costs little. A call to a"
            " hanging master times out after 0.5 s.",
            "master",
            "Spread of calls",
            "Are all calls of masters slow, or those of one? A band at the timeout is a hanging master.",
            _CALL,
            width=8,
        ),
        graph(
            "Calls by master",
            "How many calls does each master get? During claims, all should get the same. A master that is down gets"
            " only probes, five a second from each worker; without claims that is more than the others get, one a"
            " second.",
            "ops",
            Query(per_second(f"{_CALL}_count", "master"), "{{master}}"),
            width=8,
        ),
    ]


def _p99_and_spread(
    title: str, question: str, label: str, spread: str, spread_question: str, histogram: str, *, width: int
) -> list[Panel]:
    """Return a graph of a histogram's p99 by a label, and a heatmap of all observations."""
    return [
        graph(title, question, "s", Query(quantile(0.99, histogram, label), f"{{{{{label}}}}}"), width=width),
        heatmap(spread, spread_question, histogram, width=width),
    ]


def _database() -> list[Panel]:
    return [
        graph(
            "Connections by state",
            "Do claims wait for a connection? When the connections in use of a pool reach its limit, the next request "
            "waits. Lists, searches, counts, the audit and exports have the pool `reads`.",
            COUNT,
            Query(
                "sum by (instance, pool, state) (claimsvc_db_pool_connections{HERE})", "{{instance}} {{pool}} {{state}}"
            ),
            Query("sum by (instance, pool) (claimsvc_db_pool_limit{HERE})", "{{instance}} {{pool}} limit"),
            width=6,
        ),
        quantile_graph(
            "Transactions: quantiles",
            "How long does a transaction that admits claims take, including the wait for a connection?",
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
            "Which coupon's counter in Redis differed from PostgreSQL when it was last corrected, and by how many"
            " units? Only the strategy `counter` has counters. No line: none has drifted.",
            COUNT,
            Query("max by (coupon) (abs(claimsvc_counter_drift{HERE}))", "{{coupon}}"),
            width=12,
        ),
        graph(
            "Counters corrected",
            "Which coupon's counter was corrected, and how often? Once may follow a crash; repeatedly is a defect.",
            COUNT,
            Query(ten_most(happened("claimsvc_drifts_mended_total", "$__rate_interval", "coupon", HERE)), "{{coupon}}"),
            width=12,
        ),
    ]


def _load_of_processes() -> list[Panel]:
    return [
        *_p99_and_spread(
            "Event-loop lag by instance, p99",
            "Which process is too busy to run tasks on time?",
            "instance",
            "Spread of event-loop lag",
            "Are the processes late because of a steady load, or because of occasional stalls?",
            _LAG,
            width=6,
        ),
        graph(
            "CPU by instance",
            "How many cores does each instance use? A worker can use at most one.",
            "none",
            Query(per_second("process_cpu_seconds_total", "instance"), "{{instance}}"),
            width=6,
        ),
        graph(
            "Memory by instance",
            "Does the memory of an instance keep growing?",
            "bytes",
            Query("sum by (instance) (process_resident_memory_bytes{HERE})", "{{instance}}"),
            width=6,
        ),
    ]


def _life_of_processes() -> list[Panel]:
    return [
        graph(
            "File descriptors",
            "How close is an instance to its limit of open files, which include connections? The average of its"
            " workers.",
            "percentunit",
            Query("max by (instance) (process_open_fds{HERE} / process_max_fds{HERE})", "{{instance}}"),
            most=1,
        ),
        graph(
            "Time since start",
            "Does an instance restart repeatedly? Of several workers, the youngest counts.",
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
