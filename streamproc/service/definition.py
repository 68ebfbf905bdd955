"""A pipeline file as the service takes it: YAML that was sent, under the name it was sent to.

Everything is looked up anew each time a definition is read: references in the environment, user code in the one
folder that the service was given for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streamproc.connectors import load_connectors
from streamproc.pipeline.document import Document, FieldPath, Problem, decode_document
from streamproc.pipeline.faults import Fault
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import PhysicalGraph, plan_physical
from streamproc.pipeline.planner import check_document
from streamproc.pipeline.references import References


@dataclass(frozen=True, slots=True)
class Definition:
    """What a file means. `graph` is None when it has errors; `faults` holds warnings, too."""

    yaml: bytes
    graph: LogicalGraph | None
    physical: PhysicalGraph | None  # of the same
    faults: tuple[Fault, ...]
    names_parallelism: bool  # the file says `job.parallelism` itself

    @property
    def fault_text(self) -> str:
        """Its errors, a line each."""
        return "\n".join(str(fault) for fault in self.faults if fault.severity == "error")


def read_definition(
    name: str,
    yaml: bytes,
    *,
    checkpoints: str,
    functions: Path | None,
    parallelism: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Definition:
    """Read and plan; blocks for as long as user code takes to load. `checkpoints`: the storage of a file that names
    none. `functions` None: there is no user code. `parallelism` stands in place of the file's."""
    document = decode_document(yaml, file=f"{name}.yaml", references=References(environment, Path.cwd()))
    named = document.value.get("pipeline") if isinstance(document.value, dict) else None
    if isinstance(named, str) and named != name:
        _refuse(document, ("pipeline",), f"is '{named}', but the file was sent for the pipeline '{name}'")
    if functions is None:
        for path, verb in _calls(document.value):
            hint = "set `functions` in the service's configuration to the folder it is in"
            _refuse(document, path, "this service runs no user code", hint)
            verb["call"] = None
    graph, faults = check_document(document, folder=functions or Path.cwd(), parallelism=parallelism)
    if graph is not None:
        graph = _with_storage(graph, checkpoints)
        load_connectors(graph)
    physical = None if graph is None else plan_physical(graph)
    return Definition(yaml, graph, physical, tuple(faults), _names_parallelism(document.value))


def _with_storage(graph: LogicalGraph, checkpoints: str) -> LogicalGraph:
    job = graph.job
    if "checkpoint" in job.model_fields_set and "storage" in job.checkpoint.model_fields_set:
        return graph
    spec = job.checkpoint.model_copy(update={"storage": checkpoints})
    return replace(graph, job=job.model_copy(update={"checkpoint": spec}))


def _refuse(document: Document, path: FieldPath, message: str, hint: str | None = None) -> None:
    document.problems.append(Problem(*document.place_of(path), path, message, hint))
    document.broken.add(path)


def _calls(value: Any) -> Iterator[tuple[FieldPath, dict[str, Any]]]:
    """Every `call` of the file: where it stands, and the mapping around it."""
    steps = value.get("steps") if isinstance(value, dict) else None
    for name, step in steps.items() if isinstance(steps, dict) else ():
        for verb in ("python", "process"):
            written = step.get(verb) if isinstance(step, dict) else None
            if isinstance(written, dict) and "call" in written:
                yield ("steps", name, verb, "call"), written


def _names_parallelism(value: Any) -> bool:
    job = value.get("job") if isinstance(value, dict) else None
    return isinstance(job, dict) and "parallelism" in job
