"""What the command line shows of the service, as text."""

from __future__ import annotations

import io

from rich.console import Console

from streamproc.commands.remote_views import conclusion, list_view, status_view
from streamproc.service.views import PipelineSummary, PlanView, StepChange
from tests.shown_pipelines import pipeline, revenue_graph


def test_a_long_reason_leaves_the_table_as_it_is() -> None:
    reason = "none of the checkpoints can be used: " + "chk-00000089/manifest.json: not readable; " * 20
    failed = PipelineSummary(
        name="clicks", state="failed", wanted="running", ready=False, message=reason, revision=1, parallelism=1
    )
    printed = io.StringIO()
    Console(file=printed, width=500).print(list_view([failed]))
    text = printed.getvalue()
    (row,) = (line for line in text.splitlines() if line.strip().startswith("clicks "))
    assert "failed, wanted running" in row
    assert "checkpoint" not in row
    assert reason.split() == text.partition("clicks: ")[2].split()


def test_a_pipeline_that_is_created_anew_says_what_it_goes_on_from() -> None:
    rows = StepChange(name="rows", kind="source", change="added", state="kept")
    gone = StepChange(name="counts", kind="step", change="removed", state="dropped")
    plan = PlanView(
        id="p1", pipeline="clicks", revision=None, action="create", drops_state=False, checkpoint=None, changes=(rows,)
    )
    assert conclusion(plan) == "clicks would be created, with 1 node."
    earlier = plan.model_copy(update={"checkpoint": 12})
    assert conclusion(earlier) == "clicks would be created, with 1 node, from checkpoint 12 of an earlier clicks."
    losing = earlier.model_copy(update={"changes": (rows, gone), "drops_state": True})
    assert conclusion(losing) == (
        "clicks would be created, with 1 node, from checkpoint 12 of an earlier clicks, and lose the state of counts: "
        "`apply` refuses that without --drop-state."
    )


def test_a_narrow_terminal_cuts_no_figure_short() -> None:
    detail, graph = pipeline("revenue-by-country"), revenue_graph("revenue-by-country")
    figures = {f"{each.records_in_per_second:,.0f}" for each in graph.nodes}
    figures |= {f"{detail.records_in:,}", f"{detail.records_out:,}"}
    printed = io.StringIO()
    console = Console(file=printed, width=80)
    console.print(list_view([detail]))
    console.print(status_view(detail, graph))
    assert figures <= set(printed.getvalue().split())
