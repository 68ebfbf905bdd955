"""Pipelines as short texts, and what checking them says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

from streamproc.pipeline.document import parse_document
from streamproc.pipeline.faults import Fault
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.planner import check_document
from streamproc.pipeline.references import References

HEAD = """\
version: 1
pipeline: shop
"""
ORDERS = """\
sources:
  orders:
    type: file
    path: orders/*.json
    schema: {id: int64, country: string, amount: float64, tags: "list[string]", at: timestamp_ms}
    event_time: {column: at, out_of_order: 10s}
"""
OUT = """\
sinks:
  out: {type: print, input: result}
"""


def check(
    text: str, *, environment: Mapping[str, str] | None = None, folder: Path = Path()
) -> tuple[LogicalGraph | None, list[Fault]]:
    """Check a text as if it were the file shop.yaml."""
    file = str(folder / "shop.yaml")
    document = parse_document(dedent(text), file=file, references=References(environment or {}, folder))
    return check_document(document)


def faults(text: str, *, environment: Mapping[str, str] | None = None, folder: Path = Path()) -> list[str]:
    """All that is wrong with a text, as a user reads it. A text without errors has a graph, one with has none."""
    graph, found = check(text, environment=environment, folder=folder)
    assert (graph is None) == any(fault.severity == "error" for fault in found)
    return [str(fault).removeprefix(f"{folder}/") for fault in found]


def graph_of(text: str, *, environment: Mapping[str, str] | None = None, folder: Path = Path()) -> LogicalGraph:
    """The graph of a text that is right."""
    graph, found = check(text, environment=environment, folder=folder)
    assert graph is not None, found
    return graph


def of_steps(steps: str) -> str:
    """A whole pipeline around the steps given; `result` is what the sink reads."""
    return (
        HEAD + ORDERS + "steps:\n" + "\n".join("  " + line for line in dedent(steps).strip().splitlines()) + "\n" + OUT
    )
