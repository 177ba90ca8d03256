"""Is the work done that nobody waits for?"""

from dashboards.panels import COUNT, Panel, Query, graph
from dashboards.promql import HERE, happened, per_second, quantile


def job_panels() -> list[Panel]:
    """The jobs' part of the dashboard of what claims depend on."""
    return [
        graph(
            "Passes of jobs",
            "Are jobs done? One instance at a time does a pass, and for the others it is `elsewhere`. Without `sweep`"
            " holds that are over are given back only when somebody claims.",
            "ops",
            Query(per_second("claimsvc_job_runs_total", "name, result"), "{{name}} {{result}}"),
        ),
        graph(
            "Length of a pass, p99",
            "Does a pass take longer than the pause between two? Then there is more to do than is done.",
            "s",
            Query(quantile(0.99, "claimsvc_job_seconds", "name"), "{{name}}"),
        ),
        graph(
            "What jobs did",
            "How much is there to do: holds that ended, counters that were mended, rows that were removed?",
            COUNT,
            Query(happened("claimsvc_job_items_total", "$__rate_interval", "name", HERE), "{{name}}"),
        ),
    ]
