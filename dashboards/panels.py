"""The panels that the dashboards are made of. Each has a title, the question that it answers, and a unit."""

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

from dashboards.promql import selected

Panel = TimeseriesPanel | StatPanel | HeatmapPanel | StateTimelinePanel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

_WIDTH = 24


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel.

    Args:
        expression: see `promql`.
        legend: what its series are called, with `{{label}}` for a label's value.
    """

    expression: str
    legend: str = ""

    def builder(self, number: int = 0) -> Dataquery:
        """For Grafana, as the panel's query of that number. Quantiles come with the traces behind them."""
        query = (
            Dataquery()
            .datasource(SOURCE)
            .ref_id(chr(ord("A") + number))
            .expr(selected(self.expression))
            .legend_format(self.legend or "__auto")
            .exemplar("_bucket{" in self.expression)
        )
        # What is of the whole time range is asked once, not anew for each moment of it.
        return query.instant() if "[$__range]" in self.expression else query.range()


def graph(
    title: str,
    question: str,
    unit: str,
    *queries: Query,
    width: int = _WIDTH // 3,
    stacked: bool = False,
    most: float | None = None,
) -> TimeseriesPanel:
    """Lines over time, the largest first in the legend.

    Args:
        title, question: what it is called, and what it answers.
        unit: as Grafana names it.
        queries: its lines.
        width: of the page's 24 columns.
        stacked: whether the lines add up to something.
        most: the upper end of the scale.
    """
    panel = (
        TimeseriesPanel()
        .title(title)
        .description(question)
        .unit(unit)
        .datasource(SOURCE)
        .height(8)
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
    return panel if most is None else panel.max(most)


def figure(
    title: str,
    question: str,
    unit: str,
    query: Query,
    *,
    width: int = 4,
    steps: Sequence[tuple[float | None, str]] = ((None, "green"),),
) -> StatPanel:
    """One figure, large, with its course behind it.

    Args:
        title, question, unit, width: see `graph`.
        query: its value, or a few.
        steps: from which value on it has which colour, from the least (None) upwards.
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
        .thresholds(
            ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps([Threshold(value=value, color=color) for value, color in steps])
        )
        .targets([query.builder()])
    )
    return panel.text_mode(BigValueTextMode.VALUE_AND_NAME) if query.legend else panel


def heatmap(title: str, question: str, unit: str, buckets: str, *, width: int = _WIDTH // 3) -> HeatmapPanel:
    """How a histogram's observations are spread, over time. `buckets` is an expression of `promql.buckets`."""
    return (
        HeatmapPanel()
        .title(title)
        .description(question)
        .unit("reqps")
        .datasource(SOURCE)
        .height(8)
        .span(width)
        .calculate(False)
        .y_axis(YAxisConfig().unit(unit))
        .color(HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .targets([Query(buckets, "{{le}}").builder().format(PromQueryFormat.HEATMAP)])
    )


def timeline(title: str, question: str, unit: str, query: Query, *, width: int = _WIDTH) -> StateTimelinePanel:
    """What state each series is in, over time."""
    return (
        StateTimelinePanel()
        .title(title)
        .description(question)
        .unit(unit)
        .datasource(SOURCE)
        .height(8)
        .span(width)
        .thresholds(
            ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps([Threshold(value=None, color="transparent"), Threshold(value=1, color="blue")])
        )
        .targets([query.builder()])
    )
