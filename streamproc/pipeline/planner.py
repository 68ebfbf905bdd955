"""From a pipeline file to its logical graph, or to every fault in it.

Parts are checked one by one, those that depend on faulty ones too: a column with a fault keeps its name
and has the type `UNKNOWN`, a stream of which nothing is known has `AnyColumns`; both go with everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl

from operators.connector import ERRORS_SCHEMA
from operators.element import Schema
from streamproc.pipeline.cases import check_cases
from streamproc.pipeline.columns import AnyColumns, GuessedColumns, differences, together
from streamproc.pipeline.connections import check_connection
from streamproc.pipeline.document import Document, FieldPath, read_document
from streamproc.pipeline.faults import Fault, FaultLog, InvalidPipeline
from streamproc.pipeline.job_rules import check_job, check_parallelism
from streamproc.pipeline.logical import (
    Changelog,
    LogicalGraph,
    LogicalInput,
    LogicalSink,
    LogicalSource,
    LogicalStep,
    StreamRef,
)
from streamproc.pipeline.old_rows import without_old_rows
from streamproc.pipeline.shape import Part, Shape, read_shape, read_sql_step
from streamproc.pipeline.sinks import plan_sink
from streamproc.pipeline.sources import SourceFacts, plan_source
from streamproc.pipeline.spec import JobSpec, StepSpec
from streamproc.pipeline.sql.fault import SqlFault
from streamproc.pipeline.sql.rows import Stream
from streamproc.pipeline.sql.steps import Step
from streamproc.pipeline.sql.translate import translate
from streamproc.pipeline.sql_log import SqlFaultLog
from streamproc.pipeline.steps import check_step_rules, plan_step
from streamproc.pipeline.verbs.verb import InputFacts, PlannedStep
from streamproc.pipeline.wiring import (
    Input,
    Wiring,
    check_side_outputs,
    check_something_runs,
    error_policy,
    keeps_late_rows,
    live_inputs,
    warn_unread,
    wire,
    written_inputs,
)

_DIFFERENCES_SHOWN = 3


def load_pipeline(path: Path) -> LogicalGraph:
    """The logical graph of a file. Raises `InvalidPipeline` with every fault."""
    graph, faults = check_pipeline(path)
    if graph is None:
        raise InvalidPipeline(faults)
    return graph


def check_pipeline(
    path: Path, *, environment: Mapping[str, str] = os.environ
) -> tuple[LogicalGraph | None, list[Fault]]:
    """The logical graph (None: the file has errors) and all faults; warnings alone leave a graph."""
    return check_document(read_document(path, environment=environment))


def check_document(
    document: Document, *, folder: Path | None = None, parallelism: int | None = None
) -> tuple[LogicalGraph | None, list[Fault]]:
    """As `check_pipeline`, for a document that has been read. `folder`: where user code and files to look up are
    looked for, else beside the document. `parallelism` stands in place of `job.parallelism`."""
    log = FaultLog(document)
    graph = None
    if document.value is not None or not document.problems:
        shape = read_shape(log)
        if shape is not None:
            if parallelism is not None:
                job = (shape.job.spec or JobSpec()).model_copy(update={"parallelism": parallelism})
                shape.job = replace(shape.job, spec=job)
            graph = _Planner(shape, log, folder or Path(document.file).parent).plan()
    return (None if log.failed else graph), log.faults()


@dataclass(slots=True)
class _Stream:
    """What is known of one stream: its columns, and the sources it comes from."""

    schema: Schema
    untimed: frozenset[str]  # sources (and errors streams) behind it that have no event time
    bounded: bool
    changelog: Changelog | None = None
    event_time: str | None = None  # the column that holds it, where one does


@dataclass(slots=True)
class _Planner:
    shape: Shape
    log: FaultLog
    folder: Path  # of user code
    wiring: Wiring = field(default_factory=Wiring)
    streams: dict[StreamRef, _Stream] = field(default_factory=dict)
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of each query: its steps but for the last

    def plan(self) -> LogicalGraph:
        """Check everything; the graph is only whole when no error was recorded."""
        shape, log = self.shape, self.log
        job = check_job(shape.job, log)
        for connection in shape.connections.values():
            check_connection(connection, log)
        check_parallelism([*shape.sources.values(), *shape.steps.values(), *shape.sinks.values()], job, log)
        self.wiring = wire(shape, log)
        check_side_outputs(self.wiring, shape, log)
        check_something_runs(self.wiring, shape, log)
        self._check_renames()
        sources = self._plan_sources()
        steps = self._plan_steps(job)
        sinks = self._plan_sinks(job)
        warn_unread(self.wiring, shape, log)
        check_cases(shape.tests, sources, list(shape.sources), self._readable(), log)
        live = self.wiring.live
        assert log.failed or live <= sources.keys() | steps.keys() | sinks.keys(), "a part was dropped without a fault"
        running = {name: sink for name, sink in sinks.items() if name in live}
        return LogicalGraph(
            pipeline=shape.pipeline,
            job=job,
            sources={name: source for name, source in sources.items() if name in live},
            steps=without_old_rows({name: step for name, step in steps.items() if name in live}, running),
            sinks=running,
            tests=tuple(part.spec for part in shape.tests if part.spec is not None),
            warnings=tuple(str(fault) for fault in log.faults() if fault.severity == "warning"),
            secrets=log.document.secrets,
        )

    def _readable(self) -> dict[StreamRef, Schema]:
        """Streams that a test may expect rows of."""
        parts: Mapping[str, Part[Any]] = {**self.shape.sources, **self.shape.steps}
        return {
            ref: stream.schema
            for ref, stream in self.streams.items()
            if ref.node in parts
            and (ref.tag != "errors" or error_policy(parts[ref.node], self.shape.job) in ("dlq", None))
            and (ref.tag != "late" or keeps_late_rows(parts[ref.node]) is not False)
        }

    def _plan_sources(self) -> dict[str, LogicalSource]:
        planned: dict[str, LogicalSource] = {}
        for name, part in self.shape.sources.items():
            facts = plan_source(name, part, self.shape.job, self.shape.connections, self.log)
            self._add_streams_of_source(name, facts)
            if facts.logical is not None:
                planned[name] = facts.logical
        return planned

    def _add_streams_of_source(self, name: str, facts: SourceFacts) -> None:
        untimed = frozenset() if facts.has_event_time else frozenset({name})
        self.streams[StreamRef(name)] = _Stream(facts.schema, untimed, facts.bounded, facts.changelog, facts.event_time)
        self._add_errors_stream(name, facts.bounded)

    def _add_errors_stream(self, name: str, bounded: bool) -> None:
        ref = StreamRef(name, "errors")
        self.streams[ref] = _Stream(dict(ERRORS_SCHEMA), frozenset({str(ref)}), bounded)

    def _plan_steps(self, job: JobSpec) -> dict[str, LogicalStep]:
        planned: dict[str, LogicalStep] = {}
        in_circle = [name for name in self.shape.steps if name in self.wiring.in_circle]
        for name in (*in_circle, *self.wiring.step_order):
            part = self.shape.steps[name]
            check_step_rules(part, self.log)
            if part.has("sql"):
                planned |= self._plan_sql(name, part, job)
                continue
            logical = self._plan_step(name, part, job, self.log)
            if logical is not None:
                planned[name] = logical
        return planned

    def _plan_sql(self, name: str, part: Part[StepSpec], job: JobSpec) -> dict[str, LogicalStep]:
        """The steps that a query becomes. Where it cannot be translated, readers get any columns."""
        path = (*part.path, "sql")
        log = SqlFaultLog(self.log, path)
        steps: dict[str, LogicalStep] = {}
        self.streams[StreamRef(name)] = _Stream(AnyColumns(), frozenset(), bounded=True)
        self._add_errors_stream(name, bounded=True)
        spec = part.spec
        if spec is None or spec.sql is None:
            return steps

        def plan(step: Step) -> Schema:
            inner = read_sql_step(step, name, part, log)
            written = [(text, port) for text, _, port in written_inputs(inner)]
            self.wiring.inputs[step.name] = [Input(self._ref(text), path, port=port) for text, port in written]
            if name in self.wiring.live:
                self.wiring.live.add(step.name)
            logical = self._plan_step(step.name, inner, job, log)
            if logical is not None:
                steps[step.name] = replace(logical, query=name)
            return self.streams[StreamRef(step.name)].schema

        known = {str(i.ref): self.streams[i.ref] for i in self.wiring.inputs[name] if i.ref in self.streams}
        streams = {
            text: Stream(stream.schema, stream.event_time, not stream.untimed, stream.changelog is not None)
            for text, stream in known.items()
        }
        if len(streams) == len(self.wiring.inputs[name]) and name not in self.wiring.incomplete:
            try:
                translate(spec.sql, name, streams, plan, ttl=part.written.get("ttl"))
            except SqlFault as fault:
                self.log.error(path, fault.message, fault.hint, offset=fault.offset)
        self.parts[name] = tuple(inner for inner in steps if inner != name)
        return steps

    def _plan_step(self, name: str, part: Part[StepSpec], job: JobSpec, log: FaultLog) -> LogicalStep | None:
        inputs = self.wiring.inputs[name]
        ports = 2 if any(port for _, _, port in written_inputs(part)) else 1
        facts, reorder = [], []
        for port in range(ports):
            each, mixed = self._facts(name, [i for i in inputs if i.port == port])
            facts.append(each)
            reorder.append(mixed)
        policy = error_policy(part, self.shape.job)
        step = plan_step(part, facts, reorder, policy or "fail", self.folder, log)
        if name in self.shape.sources:
            return None  # the name is taken: readers get the source's columns
        bounded = all(each.bounded for each in facts)
        sources = frozenset().union(*(each.untimed for each in facts))
        untimed = frozenset() if step.timed else sources or frozenset({name})
        self.streams[StreamRef(name)] = _Stream(step.schema, untimed, bounded, step.changelog, step.event_time)
        for tag, schema in step.side_outputs.items():
            self.streams[StreamRef(name, tag)] = _Stream(schema, frozenset(), bounded)
        self._add_errors_stream(name, bounded)
        if part.spec is None or policy is None:
            return None
        return self._logical_step(name, part, part.spec, step, job)

    def _facts(self, reader: str, inputs: list[Input]) -> tuple[InputFacts, bool]:
        """What is known of one input of a step, and whether it is a union of differently ordered columns."""
        schema, mixed = self._union(reader, inputs)
        streams = [self.streams[i.ref] for i in inputs if i.ref in self.streams]
        untimed = frozenset().union(*(stream.untimed for stream in streams))
        changelogs = [stream.changelog for stream in streams if stream.changelog is not None]
        if len(streams) > 1 and changelogs:
            if len(changelogs) < len(streams):
                appended = next(i for i in inputs if i.ref in self.streams and not self.streams[i.ref].changelog)
                message = f"'{appended.ref}' is append-only, but other inputs are updated: a union needs one kind"
                self.log.error(appended.path, message)
            changelogs = [Changelog(None)]
        return InputFacts(
            schema=schema,
            bounded=len(streams) == len(inputs) > 0 and all(stream.bounded for stream in streams),
            changelog=changelogs[0] if changelogs else None,
            untimed=sorted(untimed),
            time_candidates=self._timestamps(untimed),
            name=str(inputs[0].ref) if inputs else "",
            event_time=streams[0].event_time if len({stream.event_time for stream in streams}) == 1 else None,
        ), mixed

    def _ref(self, text: str) -> StreamRef:
        """A stream as a query names it: parts of queries have a dot in their names, too."""
        if StreamRef(text) in self.streams:
            return StreamRef(text)
        node, _, tag = text.rpartition(".")
        return StreamRef(node, tag)

    def _with_parts(self, inputs: Iterable[Input]) -> tuple[StreamRef, ...]:
        """What is read; the errors stream of a query is those of all its steps."""
        refs = [i.ref for i in inputs]
        parts = [StreamRef(p, "errors") for ref in refs if ref.tag == "errors" for p in self.parts.get(ref.node, ())]
        return (*refs, *parts)

    def _logical_step(
        self, name: str, part: Part[StepSpec], spec: StepSpec, step: PlannedStep, job: JobSpec
    ) -> LogicalStep:
        parallelism = spec.parallelism or job.parallelism
        if any(each.key == () for each in step.inputs) and parallelism > 1:
            if spec.parallelism is not None:
                message = "without 'key' there is one group: it runs in one subtask"
                self.log.warning((*part.path, "parallelism"), message)
            parallelism = 1
        running = live_inputs(name, self.wiring)
        return LogicalStep(
            name=name,
            inputs=tuple(
                LogicalInput(self._with_parts(i for i in running if i.port == port), tuple(each.before), each.key)
                for port, each in enumerate(step.inputs)
            ),
            operators=tuple(step.operators),
            schema=step.schema,
            errors=error_policy(part, self.shape.job) or "fail",
            parallelism=parallelism,
            changelog=step.changelog,
            side_outputs=step.side_outputs,
            was=spec.was,
        )

    def _plan_sinks(self, job: JobSpec) -> dict[str, LogicalSink]:
        planned: dict[str, LogicalSink] = {}
        for name, part in self.shape.sinks.items():
            inputs = self.wiring.inputs[name]
            facts, _ = self._facts(name, inputs)
            refs = self._with_parts(live_inputs(name, self.wiring) or inputs)
            logical = plan_sink(name, part, refs, facts, job, self.shape.connections, self.log)
            if logical is not None:
                planned[name] = logical
        return planned

    def _union(self, reader: str, inputs: list[Input]) -> tuple[Schema, bool]:
        """The columns of all inputs together, and whether some have them in another order."""
        if reader in self.wiring.starved:
            return dict(ERRORS_SCHEMA), False
        known = [(entry, self.streams[entry.ref].schema) for entry in inputs if entry.ref in self.streams]
        certain = [
            (entry, schema)
            for entry, schema in known
            if not isinstance(schema, GuessedColumns) and entry.ref not in self.wiring.refused
        ]
        reorder = False
        for entry, schema in certain[1:]:
            first, columns = certain[0]
            if found := differences(columns, schema):
                self._record_difference(first.ref, entry.ref, found, entry.path)
            reorder |= list(schema) != list(columns)
        schemas = [schema for _, schema in certain or known if not isinstance(schema, AnyColumns)]
        return reduce(together, schemas) if schemas else AnyColumns(), reorder

    def _record_difference(self, first: StreamRef, other: StreamRef, found: list[str], path: FieldPath) -> None:
        told = found[:_DIFFERENCES_SHOWN]
        if len(found) > len(told):
            told.append(f"and {len(found) - len(told)} more")
        message = f"inputs need the same columns: unlike '{first}', '{other}' {', '.join(told)}"
        self.log.error(path, message, "make them alike in a step with `select`")

    def _timestamps(self, names: frozenset[str]) -> dict[str, list[str]]:
        """Columns of these sources that could be event time."""
        found: dict[str, list[str]] = {}
        for name in names & self.shape.sources.keys():
            stream = self.streams.get(StreamRef(name))
            columns = stream.schema if stream is not None else {}
            found[name] = [column for column, dtype in columns.items() if isinstance(dtype, pl.Datetime)]
        return found

    def _check_renames(self) -> None:
        """`was` names a step of an older version of the file, once."""
        claimed: dict[str, str] = {}
        for name, part in self.shape.steps.items():
            was = part.spec.was if part.spec is not None else None
            if was is None:
                continue
            at = (*part.path, "was")
            if was in self.shape.steps:
                self.log.error(at, f"'{was}' is still a step of this file: '{name}' cannot have its state")
            elif was in claimed:
                self.log.error(at, f"the state of '{was}' goes to '{claimed[was]}' already")
            claimed.setdefault(was, name)
