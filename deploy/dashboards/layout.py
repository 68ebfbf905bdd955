"""Puts panels on Grafana's grid of 24 columns: sections of lines, filled from the left, nothing on top of anything.

A dashboard is a title, variables and sections; what all have in common (time range, refresh, links, the marks
of alerts) is here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from deploy.dashboards.panels import DATASOURCE, ORANGE, Panel
from deploy.dashboards.promql import series

GRID_COLUMNS: Final = 24
TAG: Final = "streamproc"
SERVICE: Final = 'service="streamproc"'
FIRING: Final = f'ALERTS{{alertstate="firing", {SERVICE}}}'


@dataclass(frozen=True, slots=True)
class Line:
    """Panels side by side, of one height (in grid rows); equally wide unless `widths` (in columns) says otherwise."""

    height: int
    panels: Sequence[Panel]
    widths: Sequence[int] | None = None

    def columns(self) -> Sequence[int]:
        """Their widths; the last takes what the others leave."""
        if self.widths is not None:
            return self.widths
        each = GRID_COLUMNS // len(self.panels)
        return [*[each] * (len(self.panels) - 1), GRID_COLUMNS - each * (len(self.panels) - 1)]


@dataclass(frozen=True, slots=True)
class Section:
    """A row with a title, and the lines under it."""

    title: str
    lines: Sequence[Line]


def pipeline_variable(*, several: bool) -> builders.QueryVariable:
    """`$pipeline`: the pipelines Prometheus knows of; all of them at first where `several` may be chosen."""
    variable = (
        builders.QueryVariable("pipeline")
        .label("Pipeline")
        .description("The pipelines that the service has, or had within the time shown.")
        .datasource(DATASOURCE)
        .query(f"label_values({series('up')}, pipeline)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(several)
        .include_all(several)
    )
    if several:
        variable.all_value(".+").current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    return variable


def lay_out(
    uid: str,
    title: str,
    says: str,
    sections: Sequence[Section],
    variables: Sequence[builders.QueryVariable] = (),
) -> models.Dashboard:
    """The whole dashboard. Panels are numbered in reading order."""
    board = (
        builders.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags([TAG])
        .timezone("browser")
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .variables(list(variables))
        .annotation(_alerts(with_pipeline=bool(variables)))
        .link(
            builders.DashboardLink("Dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .as_dropdown(False)
        )
    )
    number, y = 1, 0
    for section in sections:
        board.with_row(builders.Row(section.title).id(number).grid_pos(models.GridPos(h=1, w=GRID_COLUMNS, x=0, y=y)))
        number, y = number + 1, y + 1
        for line in section.lines:
            x = 0
            for panel, width in zip(line.panels, line.columns(), strict=True):
                board.with_panel(panel.id(number).grid_pos(models.GridPos(h=line.height, w=width, x=x, y=y)))
                number, x = number + 1, x + width
            y += line.height
    return board.build()


def _alerts(*, with_pipeline: bool) -> builders.AnnotationQuery:
    expr = FIRING[:-1] + ', pipeline=~"$pipeline|"}' if with_pipeline else FIRING
    return builders.AnnotationQuery().name("Alerts").datasource(DATASOURCE).enable(True).icon_color(ORANGE).expr(expr)
