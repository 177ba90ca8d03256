"""Is it Redis, PostgreSQL or the process itself?"""

from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.jobs import job_panels
from dashboards.page import page
from dashboards.panels import Query, figure, graph, heatmap
from dashboards.promql import buckets, per_second, quantile

_CALL = "claimsvc_redis_call_seconds"
_TRANSACTION = "claimsvc_db_transaction_seconds"
_LAG = "claimsvc_event_loop_lag_seconds"


def dependencies() -> Dashboard:
    return page(
        "claimsvc-dependencies",
        "Do claims wait for the masters, for PostgreSQL, or for the process itself? Whichever is slow here shows as"
        " waiting on the other two dashboards.",
        {
            "Now": [
                figure(
                    "Instances up",
                    "How many instances can Prometheus scrape?",
                    "short",
                    Query("sum(up{HERE})"),
                    steps=((None, "red"), (1.0, "green")),
                ),
                figure(
                    "Masters that may still fail",
                    "How many more masters may fail before no lock can be taken? 0: the next failure stops all claims"
                    " under the lock. Below 0 they are stopped. As the instance sees it that sees the fewest.",
                    "none",
                    Query(
                        "min(sum by (job, instance) (claimsvc_redis_master_up{HERE})"
                        " - floor(count by (job, instance) (claimsvc_redis_master_up{HERE}) / 2) - 1)"
                    ),
                    steps=((None, "red"), (0.0, "orange"), (1.0, "green")),
                ),
                figure(
                    "Promises that almost broke",
                    "How many transactions were rolled back because a promise would have been broken, since the"
                    " processes started? Anything but 0 is a defect: wake somebody.",
                    "short",
                    Query("sum(claimsvc_invariant_violations_total{HERE})"),
                    steps=((None, "green"), (1.0, "red")),
                ),
                figure(
                    "Transactions, p99",
                    "How long does PostgreSQL take to decide a batch?",
                    "s",
                    Query(quantile(0.99, _TRANSACTION)),
                    steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
                ),
                figure(
                    "Calls of masters, p99",
                    "How long does the slowest master take to answer?",
                    "s",
                    Query(f"max({quantile(0.99, _CALL, 'master')})"),
                    steps=((None, "green"), (0.05, "orange"), (0.25, "red")),
                ),
                figure(
                    "Event-loop lag, p99",
                    "How late does the busiest process get round to what is due? All that it does is late by as much.",
                    "s",
                    Query(f"max({quantile(0.99, _LAG, 'instance')})"),
                    steps=((None, "green"), (0.1, "orange"), (0.5, "red")),
                ),
            ],
            "Redis masters": [
                graph(
                    "Masters up",
                    "Which master does not answer? 1: it answers every instance; 0: some instance does not reach it.",
                    "none",
                    Query("min by (master) (claimsvc_redis_master_up{HERE})", "{{master}}"),
                    width=6,
                    most=1,
                ),
                graph(
                    "Calls by master, p99",
                    "Which master is slow? A lock needs a majority, so one slow master of three costs little.",
                    "s",
                    Query(quantile(0.99, _CALL, "master"), "{{master}}"),
                    width=6,
                ),
                heatmap(
                    "Spread of calls",
                    "Are all calls of masters slow, or those of one? A band at the time-out is a master that hangs.",
                    "s",
                    buckets(_CALL),
                    width=6,
                ),
                graph(
                    "Calls by master",
                    "How much is each master asked? All should be asked the same; one that is down is probed only.",
                    "ops",
                    Query(per_second(f"{_CALL}_count", "master"), "{{master}}"),
                    width=6,
                ),
            ],
            "PostgreSQL": [
                graph(
                    "Connections by state",
                    "Do claims wait for a connection? When as many are in use as the instance may have, the next"
                    " transaction waits.",
                    "short",
                    Query("sum by (instance, state) (claimsvc_db_pool_connections{HERE})", "{{instance}} {{state}}"),
                    Query("sum by (instance) (claimsvc_db_pool_limit{HERE})", "{{instance}} limit"),
                    width=6,
                ),
                graph(
                    "Transactions: quantiles",
                    "How long does a transaction take that admits claims, waiting for a connection included?",
                    "s",
                    *(Query(quantile(share, _TRANSACTION), f"p{share * 100:g}") for share in (0.5, 0.9, 0.99)),
                    width=6,
                ),
                heatmap(
                    "Spread of transactions",
                    "Is the database slow all the time, or now and then?",
                    "s",
                    buckets(_TRANSACTION),
                    width=6,
                ),
                graph(
                    "Transactions by instance",
                    "How many transactions does each instance make?",
                    "ops",
                    Query(per_second(f"{_TRANSACTION}_count", "instance"), "{{instance}}"),
                    width=6,
                ),
                graph(
                    "Drift of counters",
                    "Which coupon's counter in Redis differed from PostgreSQL when it was last set right, and by how"
                    " many units? Only the strategy `counter` has one. No line: none has drifted.",
                    "short",
                    Query("max by (coupon) (abs(claimsvc_counter_drift{COUPON}))", "{{coupon}}"),
                    width=12,
                ),
                graph(
                    "Counters set right",
                    "Which coupon's counter is found wrong, and how often? Once is a crash that was cleaned up after;"
                    " again and again is a defect.",
                    "short",
                    Query(
                        "topk(10, sum by (coupon) (increase(claimsvc_drifts_mended_total{COUPON}[$__rate_interval])))",
                        "{{coupon}}",
                    ),
                    width=12,
                ),
            ],
            "Jobs": job_panels(),
            "Processes": [
                graph(
                    "Event-loop lag by instance, p99",
                    "Which process is too busy to be in time?",
                    "s",
                    Query(quantile(0.99, _LAG, "instance"), "{{instance}}"),
                    width=6,
                ),
                heatmap(
                    "Spread of event-loop lag",
                    "Is it a steady load that makes the processes late, or a stall now and then?",
                    "s",
                    buckets(_LAG),
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
                graph(
                    "File descriptors",
                    "How near is an instance to its limit of open files, which connections are too?",
                    "percentunit",
                    Query("max by (instance) (process_open_fds{HERE} / process_max_fds{HERE})", "{{instance}}"),
                    width=8,
                    most=1,
                ),
                graph(
                    "Time since start",
                    "Does an instance start again and again? Of several workers the youngest counts.",
                    "s",
                    Query("time() - max by (instance) (process_start_time_seconds{HERE})", "{{instance}}"),
                    width=8,
                ),
                graph(
                    "Versions",
                    "Which version runs on how many instances?",
                    "short",
                    Query("count by (version, python) (claimsvc_build_info{HERE})", "{{version}}, Python {{python}}"),
                    width=8,
                ),
            ],
        },
    )
