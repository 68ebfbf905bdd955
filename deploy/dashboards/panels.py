"""How every panel looks: units, colours, legends and tooltips, so that dashboards only say what they show.

Colours mean the same everywhere: green is well, orange wants a look, red wants somebody now; a step has the
colour of its name in each panel of a dashboard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboard_builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common, dashboard, units
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

DATASOURCE: Final = dashboard.DataSourceRef(type_val="prometheus", uid="prometheus")

GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "#8e8e8e"

Panel = stat.Panel | timeseries.Panel | table.Panel | heatmap.Panel | statetimeline.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel. `legend` may use labels: `{{step}}`; where it is a name of its own, it is also
    the column's or the series' name."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True, slots=True)
class Limits:
    """From `warn` a value is orange, from `bad` red."""

    warn: float
    bad: float | None = None

    def steps(self) -> list[dashboard.Threshold]:
        """As Grafana has them: each holds from its value upwards."""
        steps = [dashboard.Threshold(None, GREEN), dashboard.Threshold(self.warn, ORANGE)]
        return steps if self.bad is None else [*steps, dashboard.Threshold(self.bad, RED)]


RED_FROM_ONE: Final = (dashboard.Threshold(None, GREEN), dashboard.Threshold(1, RED))

STATES: Final[Mapping[str, tuple[str, str]]] = {
    "0": ("not wanted", GREY),
    "1": ("ready", GREEN),
    "2": ("waiting", ORANGE),
    "3": ("down", RED),
}
"""What `queries.state` gives, in words and colours."""

REACHED: Final[Mapping[str, tuple[str, str]]] = {"0": ("unreachable", RED), "1": ("reachable", GREEN)}


def mapping(words: Mapping[str, tuple[str, str]]) -> dashboard.ValueMap:
    """Numbers shown as words in colours."""
    return dashboard.ValueMap(
        {
            value: dashboard.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(words.items())
        }
    )


def _thresholds(limits: Limits | Sequence[dashboard.Threshold] | None) -> dashboard_builders.ThresholdsConfig:
    steps = limits.steps() if isinstance(limits, Limits) else list(limits or [dashboard.Threshold(None, GREEN)])
    return dashboard_builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .expr(query.expr)
        .legend_format(query.legend)
        .ref_id(chr(ord("A") + number))
        .datasource(DATASOURCE)
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
    )


def _legend(*calcs: str) -> common_builders.VizLegendOptions:
    return (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.TABLE)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(calcs))
    )


def _tooltip() -> common_builders.VizTooltipOptions:
    return (
        common_builders.VizTooltipOptions()
        .mode(common.TooltipDisplayMode.MULTI)
        .sort(common.SortOrder.DESCENDING)
        .hide_zeros(False)
    )


def lines(
    title: str,
    says: str,
    *queries: Query,
    unit: str = units.Short,
    limits: Limits | None = None,
    least: float | None = 0,
    most: float | None = None,
    stacked: bool = False,
    min_interval: str | None = None,
) -> timeseries.Panel:
    """Series over time. `limits` are drawn as dashed lines. `min_interval`: no rate over less than that, for what
    happens now and then."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(DATASOURCE)
        .unit(unit)
        .color_scheme(dashboard_builders.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_legend("lastNotNull", "max"))
        .tooltip(_tooltip())
        .thresholds(_thresholds(limits))
    )
    if limits is not None:
        panel.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if min_interval is not None:
        panel.interval(min_interval)
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number).range())
    return panel


def figure(
    title: str,
    says: str,
    expr: str,
    *,
    unit: str = units.Short,
    limits: Limits | Sequence[dashboard.Threshold] | None = None,
    words: Mapping[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    colored: bool = False,
    min_interval: str | None = None,
) -> stat.Panel:
    """One number of now, with its course behind it. `words` are shown in its place; `colored`: the whole tile."""
    panel = (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(_thresholds(limits))
        .color_scheme(dashboard_builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .reduce_options(common_builders.ReduceDataOptions().values(False).calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE if words else common.BigValueGraphMode.AREA)
        .color_mode(common.BigValueColorMode.BACKGROUND if colored else common.BigValueColorMode.VALUE)
        .with_target(_target(Query(expr, title), 0).range())
    )
    if words is not None:
        panel.mappings([mapping(words)])
    if decimals is not None:
        panel.decimals(decimals)
    if min_interval is not None:
        panel.interval(min_interval)
    return panel


def timeline(title: str, says: str, query: Query, words: Mapping[str, tuple[str, str]]) -> statetimeline.Panel:
    """States over time, one line for each series."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(says)
        .datasource(DATASOURCE)
        .color_scheme(dashboard_builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(None))
        .mappings([mapping(words)])
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.SINGLE))
        .with_target(_target(query, 0).range())
    )


def spread(title: str, says: str, expr: str, unit: str = units.Seconds) -> heatmap.Panel:
    """A histogram over time; `expr` gives its buckets by `le`."""
    return (
        heatmap.Panel()
        .title(title)
        .description(says)
        .datasource(DATASOURCE)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_models.HeatmapColorMode.SCHEME)
            .scheme("Blues")
            .steps(64)
            .exponent(0.5)
            .reverse(False)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .rows_frame(heatmap.RowsHeatmapOptions().layout(common.HeatmapCellLayout.AUTO))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_legend()
        .mode(common.TooltipDisplayMode.SINGLE)
        .show_color_scale(True)
        .cell_gap(1)
        .with_target(_target(Query(expr, "{{le}}"), 0).range().format(prometheus_models.PromQueryFormat.HEATMAP))
    )


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: an instant query that gives one value for each row's label."""

    name: str
    expr: str
    unit: str = units.Short
    limits: Limits | Sequence[dashboard.Threshold] | None = None
    words: Mapping[str, tuple[str, str]] | None = None
    decimals: int | None = None


def rows(title: str, says: str, label: str, columns: Sequence[Column], link: str | None = None) -> table.Panel:
    """A table with a row for each value of `label`; `link` is where a click on that leads."""
    names = [f"Value #{chr(ord('A') + number)}" for number in range(len(columns))]
    panel = (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(DATASOURCE)
        .show_header(True)
        .align(common.FieldTextAlignment.AUTO)
        .inspect(False)
        .cell_height(common.TableCellHeight.SM)
        .sort_by([common_builders.TableSortByFieldState().display_name(columns[0].name).desc(True)])
        .thresholds(_thresholds(None))
        .with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate([label, *names])},
                    "renameByName": {
                        label: label.capitalize(),
                        **{name: column.name for name, column in zip(names, columns, strict=True)},
                    },
                },
            )
        )
    )
    if link is not None:
        to = dashboard.DashboardLink(
            title="Look at ${__value.text}", type_val=dashboard.DashboardLinkType.LINK, url=link, target_blank=False
        )
        panel.override_by_name(label.capitalize(), [dashboard.DynamicConfigValue("links", [to])])
    for number, column in enumerate(columns):
        panel.with_target(_target(Query(column.expr), number).instant().format(prometheus_models.PromQueryFormat.TABLE))
        panel.override_by_name(column.name, _column_looks(column))
    return panel


def _column_looks(column: Column) -> list[dashboard.DynamicConfigValue]:
    looks = [dashboard.DynamicConfigValue("unit", column.unit)]
    if column.decimals is not None:
        looks.append(dashboard.DynamicConfigValue("decimals", column.decimals))
    if column.words is not None:
        looks.append(dashboard.DynamicConfigValue("mappings", [mapping(column.words)]))
        looks.append(
            dashboard.DynamicConfigValue(
                "custom.cellOptions",
                common.TableColoredBackgroundCellOptions(mode=common.TableCellBackgroundDisplayMode.BASIC),
            )
        )
    elif column.limits is not None:
        looks.append(dashboard.DynamicConfigValue("thresholds", _thresholds(column.limits).build()))
        looks.append(dashboard.DynamicConfigValue("custom.cellOptions", common.TableColorTextCellOptions()))
    return looks
