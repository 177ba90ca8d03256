"""Panels of the background jobs."""

from dashboards.panels import COUNT, Panel, Query, graph
from dashboards.promql import HERE, happened, per_second, quantile


def job_panels() -> list[Panel]:
    """Return the panels of the jobs, for the dashboard Dependencies."""
    return [
        graph(
            "Passes of jobs",
            "Do the jobs run? One instance at a time makes a pass; the others report `elsewhere`. Without `sweep`, the"
            " units of expired holds return to stock only with the coupon's next claim.",
            "ops",
            Query(per_second("claimsvc_job_runs_total", "name, result"), "{{name}} {{result}}"),
        ),
        graph(
            "Length of a pass, p99",
            "Does a pass take longer than the pause between passes? Then the job cannot keep up.",
            "s",
            Query(quantile(0.99, "claimsvc_job_seconds", "name"), "{{name}}"),
        ),
        graph(
            "What jobs did",
            "How much work is there: holds that expired, counters that were corrected, rows that were removed?",
            COUNT,
            Query(happened("claimsvc_job_items_total", "$__rate_interval", "name", HERE), "{{name}}"),
        ),
    ]
