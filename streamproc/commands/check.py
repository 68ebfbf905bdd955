"""`validate`, `explain` and `schema`: what can be said of a pipeline without running it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from streamproc.commands.session import DONE, WRONG_INPUT, Session, print_json
from streamproc.pipeline.explain import explain, explain_json
from streamproc.pipeline.json_schema import json_schema
from streamproc.pipeline.planner import check_pipeline, load_pipeline


def validate_files(session: Session, files: Sequence[Path], *, as_json: bool) -> int:
    """All faults of all files; 2 when one of them is an error."""
    faults = [fault for file in files for fault in check_pipeline(file)[1]]
    if as_json:
        print_json([fault.as_json() for fault in faults], indent=2)
    else:
        for fault in faults:
            session.say(str(fault))
    return WRONG_INPUT if any(fault.severity == "error" for fault in faults) else DONE


def explain_file(file: Path, *, as_json: bool) -> int:
    """The plan, on stdout, with its warnings and without secrets. Raises InvalidPipeline."""
    graph = load_pipeline(file)
    if as_json:
        print_json(explain_json(graph), indent=2)
    else:
        print(explain(graph), end="")
    return DONE


def print_schema() -> int:
    """The JSON Schema, on stdout."""
    print_json(json_schema(), indent=2)
    return DONE
