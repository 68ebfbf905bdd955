"""What each node of a graph does, in a few lines: the part of `explain` that fits into a box of a picture."""

from __future__ import annotations

from typing import Any

from streamproc.pipeline.explain import explain_json, operators_text
from streamproc.pipeline.logical import LogicalGraph


def node_words(graph: LogicalGraph) -> dict[str, tuple[str, ...]]:
    """By name of source, step and sink. Values that came from references are shown as `***`."""
    plan = explain_json(graph)
    words: dict[str, tuple[str, ...]] = {}
    for source in plan["sources"]:
        words[source["name"]] = _lines(source["reads"], source["watermark"] and f"event time {source['watermark']}")
    for step in plan["steps"]:
        # Which columns go through an exchange is of interest to who tunes it, not to who looks on.
        before = [operator for operator in step["before"] if not operator["does"].startswith("keep ")]
        does = [line.strip() for line in operators_text([*before, *step["operators"]])]
        words[step["name"]] = _lines(*(does or ["passes rows on"]))
    for sink in plan["sinks"]:
        delivery = None if sink["delivery"] == "none" else sink["delivery"]
        words[sink["name"]] = _lines(f"writes {sink['writes']}", delivery)
    return words


def _lines(*lines: Any) -> tuple[str, ...]:
    return tuple(str(line) for line in lines if line)
