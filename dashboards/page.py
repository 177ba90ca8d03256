"""The common parts of all dashboards: variables, links to the other dashboards, and annotations of deployments."""

from collections.abc import Collection, Mapping, Sequence
from itertools import count

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.panels import SOURCE, Panel, Query

TITLES = {
    "claimsvc-overview": "Overview",
    "claimsvc-claims": "Claims",
    "claimsvc-lock-contention": "Lock contention",
    "claimsvc-dependencies": "Dependencies",
}
"""The title of every dashboard by its UID, which links and bookmarks use."""

_DEPLOYS = (
    "count by (version) (claimsvc_build_info{HERE}) unless count by (version) (claimsvc_build_info{HERE} offset 5m)"
)


def page(
    uid: str,
    description: str,
    rows: Mapping[str, Sequence[Panel]],
    *,
    collapsed: Collection[str] = (),
    by_coupon: bool = True,
) -> dashboard.Dashboard:
    """Build a dashboard.

    Args:
        uid: one of `TITLES`.
        description: of the dashboard.
        rows: panels by the title of their row.
        collapsed: titles of rows that are closed at first: they explain what others show.
        by_coupon: whether there is a variable for coupons. Panels that it does not filter say so.
    """
    builder = (
        Dashboard(f"claimsvc / {TITLES[uid]}")
        .uid(uid)
        .description(description)
        .tags(["claimsvc"])
        .timezone("browser")
        .refresh("10s")
        .time("now-30m", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(
            DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
        )
        .with_variable(_variable("job", "Job", "label_values(claimsvc_build_info, job)"))
        .with_variable(_variable("instance", "Instance", 'label_values(claimsvc_build_info{job=~"$job"}, instance)'))
        .annotation(
            AnnotationQuery()
            .name("Deploys")
            .datasource(SOURCE)
            .enable(True)
            .icon_color("purple")
            .target(Query(_DEPLOYS).builder())
            .title_format("Version {{version}}")
            .tag_keys("version")
        )
        .links([_link(other) for other in TITLES if other != uid])
    )
    if by_coupon:
        coupons = 'label_values(claimsvc_claims_total{job=~"$job", instance=~"$instance"}, coupon)'
        builder.with_variable(_variable("coupon", "Coupon", coupons))
    number = count(1)  # explicit ids of rows and panels, so that links to them stay valid
    for title, panels in rows.items():
        row = Row(title).id(next(number))
        numbered = [panel.id(next(number)) for panel in panels]
        if title in collapsed:
            for panel in numbered:
                row.with_panel(panel)
            builder.with_row(row)
        else:
            builder.with_row(row)
            for panel in numbered:
                builder.with_panel(panel)
    built = builder.build()
    if by_coupon:
        _say_what_is_of_all_coupons(built)
    # The SDK's default would hide them in a menu.
    for link in built.links or ():
        link.placement = None  # type: ignore[assignment]
    for mark in built.annotations.list_val or ():
        mark.placement = None  # type: ignore[assignment]
    return built


def _say_what_is_of_all_coupons(built: dashboard.Dashboard) -> None:
    """Add it to the description of every panel that the chosen coupons do not filter."""
    for each in built.panels or ():
        for panel in each.panels if isinstance(each, dashboard.RowPanel) else (each,):
            if "$coupon" not in JSONEncoder().encode(panel.targets) and panel.description:
                panel.description += " Of all coupons, whichever are chosen."


def _variable(name: str, label: str, query: str) -> QueryVariable:
    return (
        QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(query)
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _link(uid: str) -> DashboardLink:
    return (
        DashboardLink(TITLES[uid])
        .type(DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/{uid}")
        .include_vars(True)
        .keep_time(True)
    )
