"""Panels of readiness: what `/readyz` of each instance answers, and because of which dependency."""

from dashboards.panels import Panel, Query, Steps, timeline

_YES_IS_GOOD: Steps = ((None, "red"), (1.0, "green"))


def readiness_panels() -> list[Panel]:
    """Return who is ready, and which dependency is at fault."""
    return [
        timeline(
            "Ready, instance by instance",
            "Which instances take requests? Red: `/readyz` answers 503, so load balancers send it nothing.",
            Query("min by (instance) (claimsvc_ready{HERE})", "{{instance}}"),
            steps=_YES_IS_GOOD,
        ),
        timeline(
            "Dependencies, as each instance sees them",
            "Which dependency makes an instance not ready? Red: not usable. `redis` is the majority of the masters. If"
            " only one instance sees it red, its network or its settings are at fault; if all do, the dependency is.",
            Query(
                "min by (dependency, instance) (claimsvc_dependency_up{HERE})",
                "{{dependency}} as {{instance}} sees it",
            ),
            steps=_YES_IS_GOOD,
        ),
    ]
