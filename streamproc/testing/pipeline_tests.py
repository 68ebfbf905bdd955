"""The tests of a pipeline file, run one after the other: what `streamproc test` does.

Connections are never used, so what `${…}` gives them need not be there.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from state.failure import Failure
from streamproc.pipeline.document import Document, FieldPath, read_document
from streamproc.pipeline.faults import Fault, InvalidPipeline
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.planner import check_document
from streamproc.pipeline.spec import CaseSpec
from streamproc.testing.pipeline_compare import OP, StreamDifference, actual_rows, compare, difference_lines
from streamproc.testing.pipeline_scenario import play_case

_NOT_NEEDED: Final = "not-needed:9092"  # in place of what a reference would have given
_OF_CONNECTIONS: Final = frozenset({"brokers", "security", "topic", "path"})


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one test ended. `failure`: the pipeline failed; `lines`: what differs, for people."""

    file: str
    line: int
    name: str
    seconds: float
    differences: tuple[StreamDifference, ...] = ()
    lines: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def passed(self) -> bool:
        return not self.differences and self.failure is None


@dataclass(frozen=True, slots=True)
class FileTests:
    """The tests of one file, and the pipeline with a sink on every stream that one of them expects."""

    document: Document
    graph: LogicalGraph
    cases: Sequence[CaseSpec]
    collected: Mapping[str, str]  # stream → sink


def load_tests(path: Path, *, environment: Mapping[str, str] = os.environ) -> tuple[FileTests | None, list[Fault]]:
    """The tests of a file (None: the file has errors), and everything found wrong with it."""
    document = read_document(path, environment=environment)
    _do_without_connections(document)
    graph, faults = check_document(document)
    if graph is None:
        return None, faults
    streams = list(dict.fromkeys(stream for case in graph.tests for stream in case.expect))
    collected = _read_by_sinks(document.value, streams)
    wider, more = check_document(document)
    if wider is None:
        raise InvalidPipeline(more)
    return FileTests(document, wider, graph.tests, collected), faults


async def run_tests(tests: FileTests, *, only: str = "") -> AsyncGenerator[CaseResult, None]:
    """Run the tests whose name holds `only`, in the order of the file."""
    for index, case in enumerate(tests.cases):
        if only.lower() in case.name.lower():
            yield await _run(tests, index, case)


async def _run(tests: FileTests, index: int, case: CaseSpec) -> CaseResult:
    place = tests.document.place_of
    path: FieldPath = ("tests", index)
    file, line = tests.document.file, place((*path, "name"))[0]
    began = time.monotonic()
    collected = {stream: tests.collected[stream] for stream in case.expect}
    try:
        with tempfile.TemporaryDirectory(prefix="streamproc-test-") as directory:
            frames = await play_case(tests.graph, collected, case, Path(directory))
    except Failure as failure:
        return CaseResult(file, line, case.name, time.monotonic() - began, failure=str(failure))
    differences: list[StreamDifference] = []
    lines: list[str] = []
    for stream, expected in case.expect.items():
        changes = any(OP in row for row in expected)
        difference = compare(stream, expected, actual_rows(frames[stream], changes=changes))
        if difference is not None:
            differences.append(difference)
            places = [f"{file}:{place((*path, 'expect', stream, at))[0]}" for at in range(len(expected))]
            lines += difference_lines(difference, places)
    return CaseResult(file, line, case.name, time.monotonic() - began, tuple(differences), tuple(lines))


def _read_by_sinks(pipeline: dict[str, Any], streams: Sequence[str]) -> dict[str, str]:
    """Add a sink for each stream, so that it runs where nothing else reads it; its name by stream."""
    taken = {name for section in ("sources", "steps", "sinks") for name in pipeline.get(section) or {}}
    sinks: dict[str, str] = {}
    for number, stream in enumerate(streams):
        name = f"expected-{number}"
        while name in taken:
            name += "-"
        sinks[stream] = name
    pipeline["sinks"] = pipeline["sinks"] | {
        name: {"type": "blackhole", "input": stream} for stream, name in sinks.items()
    }
    return sinks


def _do_without_connections(document: Document) -> None:
    """References that could not be resolved are no fault where what they give only serves to connect."""
    kept = []
    for problem in document.problems:
        written = _value_at(document.value, problem.path)
        if _serves_to_connect(problem.path) and isinstance(written, str) and "${" in written:
            document.broken.discard(problem.path)
            document.as_written[problem.path] = written
            _put(document.value, problem.path, _NOT_NEEDED)
        else:
            kept.append(problem)
    document.problems[:] = kept


def _serves_to_connect(path: FieldPath) -> bool:
    if path[:1] == ("connections",):
        return True
    return len(path) > 2 and path[0] in ("sources", "sinks") and path[2] in _OF_CONNECTIONS


def _value_at(value: Any, path: FieldPath) -> Any:
    for part in path:
        if not (part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)):
            return None
        value = value[part]
    return value


def _put(value: Any, path: FieldPath, text: str) -> None:
    _value_at(value, path[:-1])[path[-1]] = text
