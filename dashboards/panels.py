"""The types of panels. Each panel has a title, the question that it answers, and a unit."""

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, YAxisConfig
from grafana_foundation_sdk.builders.heatmap import Panel as HeatmapPanel
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as StatPanel
from grafana_foundation_sdk.builders.statetimeline import Panel as StateTimelinePanel
from grafana_foundation_sdk.builders.timeseries import Panel as TimeseriesPanel
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.promql import HERE, buckets, quantiles, selected

Panel = TimeseriesPanel | StatPanel | HeatmapPanel | StateTimelinePanel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

COUNT = "locale"
"""The unit of counts: integers in full. `short` would show 9,950 as 10 K."""

_WIDTH = 24
_HEIGHT = 8

Steps = Sequence[tuple[float | None, str]]
"""Thresholds and their colours, in ascending order; None is the lowest."""

NO_VERDICT: Steps = ((None, "blue"),)


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel.

    Args:
        expression: see `promql`.
        legend: the name of its series, with `{{label}}` for a label's value.
        now: an instant query. Use it for values over the time range as a whole, and where the set of series changes,
            because a figure would show the last value of every series in the range.
    """

    expression: str
    legend: str = ""
    now: bool = False

    def builder(self, number: int = 0) -> Dataquery:
        """Return Grafana's query, the panel's n-th. Quantiles have exemplars, which link to traces."""
        query = (
            Dataquery()
            .datasource(SOURCE)
            .ref_id(chr(ord("A") + number))
            .expr(selected(self.expression))
            .legend_format(self.legend or "__auto")
            .exemplar("_bucket{" in self.expression)
        )
        return query.instant() if self.now else query.range()


def graph(
    title: str,
    question: str,
    unit: str,
    *queries: Query,
    width: int = _WIDTH // 3,
    stacked: bool = False,
    most: float | None = None,
) -> TimeseriesPanel:
    """Build a graph over time, with the largest series first in the legend.

    Args:
        title, question: title of the panel, and the question it answers.
        unit: a unit of Grafana.
        queries: its lines.
        width: in columns, of 24.
        stacked: stack the lines; for lines whose sum is meaningful.
        most: the upper end of the scale.
    """
    panel = (
        TimeseriesPanel()
        .title(title)
        .description(question)
        .unit(unit)
        .datasource(SOURCE)
        .height(_HEIGHT)
        .span(width)
        .min(0)
        .fill_opacity(30 if stacked else 5)
        .legend(
            VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
            .sort_by("Max")
            .sort_desc(True)
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
        .targets([query.builder(number) for number, query in enumerate(queries)])
    )
    if stacked:
        panel.stacking(StackingConfig().mode(StackingMode.NORMAL))
    if unit == COUNT:
        panel.decimals(0)
    return panel if most is None else panel.max(most)


def quantile_graph(
    title: str, question: str, histogram: str, where: str = HERE, *, width: int = _WIDTH // 3
) -> TimeseriesPanel:
    """Build a graph of the quantiles of a histogram in seconds. Arguments as in `graph` and `promql.quantile`."""
    queries = [Query(expression, name) for name, expression in quantiles(histogram, where=where).items()]
    return graph(title, question, "s", *queries, width=width)


def figure(
    title: str,
    question: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    steps: Steps = NO_VERDICT,
) -> StatPanel:
    """Build a single value with a sparkline.

    Args:
        title, question, unit, width: see `graph`.
        query: its value, or a few values.
        steps: see `Steps`; blue if no value is better than another.
    """
    panel = (
        StatPanel()
        .title(title)
        .description(question)
        .unit(unit)
        .datasource(SOURCE)
        .height(5)
        .span(width)
        .graph_mode(BigValueGraphMode.AREA)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps))
        .targets([query.builder()])
    )
    if unit == COUNT:
        panel.decimals(0)
    return panel.text_mode(BigValueTextMode.VALUE_AND_NAME) if query.legend else panel


def _thresholds(steps: Steps) -> ThresholdsConfig:
    return (
        ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value=value, color=color) for value, color in steps])
    )


def heatmap(
    title: str, question: str, histogram: str, where: str = HERE, *, unit: str = "s", width: int = _WIDTH // 3
) -> HeatmapPanel:
    """Build a heatmap of a histogram's observations over time.

    Args:
        title, question, width: see `graph`.
        histogram, where: see `promql.quantile`.
        unit: of the observations.
    """
    return (
        HeatmapPanel()
        .title(title)
        .description(question)
        .unit("reqps")
        .datasource(SOURCE)
        .height(_HEIGHT)
        .span(width)
        .calculate(False)
        .y_axis(YAxisConfig().unit(unit))
        .color(HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .targets([Query(buckets(histogram, where), "{{le}}").builder().format(PromQueryFormat.HEATMAP)])
    )


def timeline(title: str, question: str, query: Query, *, steps: Steps, width: int = _WIDTH // 2) -> StateTimelinePanel:
    """Build a timeline that shows the state of each series as a colour. Arguments as in `figure`."""
    return (
        StateTimelinePanel()
        .title(title)
        .description(question)
        .unit("none")
        .datasource(SOURCE)
        .height(_HEIGHT)
        .span(width)
        .thresholds(_thresholds(steps))
        .targets([query.builder()])
    )
