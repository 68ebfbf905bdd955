"""The logical graph: what a pipeline file means, once every fault in it has been ruled out.

Names are the identity of everything. The planner builds it, `explain` prints it, `physical` gives
it parallelism and chains, a runner runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from operators.connector import ErrorPolicy, Sink, Source
from operators.element import OutputTag, Schema
from operators.operator import OperatorSpec
from operators.types import FieldType
from streamproc.pipeline.spec import (
    BlackholeSinkSpec,
    CaseSpec,
    DatagenSourceSpec,
    FileSinkSpec,
    FileSourceSpec,
    JobSpec,
    KafkaConnectionSpec,
    KafkaSinkSpec,
    KafkaSourceSpec,
    PrintSinkSpec,
)


@dataclass(frozen=True, slots=True, order=True)
class StreamRef:
    """One output stream of a source or a step."""

    node: str
    tag: OutputTag = "main"

    def __str__(self) -> str:
        return self.node if self.tag == "main" else f"{self.node}.{self.tag}"


@dataclass(frozen=True, slots=True)
class Changelog:
    """Rows of this stream are taken back, too (`operators.element.KIND`). `key`: the columns that tell which row
    a change is about; None: only the whole row does."""

    key: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class EventTime:
    """Where event time is and how a split's watermark follows it."""

    column: str
    out_of_order_ms: int = 0
    idle_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SuppliedSource:
    """A source that is handed in, in place of the one that the file describes."""

    source: Source
    type: ClassVar[str] = "supplied"


@dataclass(frozen=True, slots=True)
class SuppliedSink:
    """A sink that is handed in, in place of the one that the file describes."""

    sink: Sink
    type: ClassVar[str] = "supplied"


@dataclass(frozen=True, slots=True)
class LogicalSource:
    name: str
    config: KafkaSourceSpec | FileSourceSpec | DatagenSourceSpec | SuppliedSource
    connection: KafkaConnectionSpec | None  # resolved, for kafka
    fields: Mapping[str, FieldType]  # the payload's declared fields
    schema: Schema  # visible columns: payload, then metadata
    event_time: EventTime | None
    errors: ErrorPolicy
    parallelism: int
    bounded: bool
    changelog: Changelog | None = None


@dataclass(frozen=True, slots=True)
class LogicalInput:
    """One input of a step: the union of `streams`. `before` runs where the rows come from, ahead of the exchange."""

    streams: tuple[StreamRef, ...]
    before: tuple[OperatorSpec, ...] = ()
    key: tuple[str, ...] | None = None  # hash exchange by these columns; () one global group; None: no exchange


@dataclass(frozen=True, slots=True)
class LogicalStep:
    """What one step of the file does, or one part of a `sql` step."""

    name: str
    inputs: tuple[LogicalInput, ...]  # one, or left and right: the place is the port
    operators: tuple[OperatorSpec, ...]
    schema: Schema
    errors: ErrorPolicy
    parallelism: int
    changelog: Changelog | None = None  # of the main output
    side_outputs: Mapping[str, Schema] = field(default_factory=dict)  # by tag, "late" among them
    was: str | None = None
    query: str | None = None  # the step of the file whose `sql` it is part of

    @property
    def streams(self) -> tuple[StreamRef, ...]:
        """Every stream it reads; once for each input that does."""
        return tuple(ref for each in self.inputs for ref in each.streams)

    @property
    def exchanges(self) -> bool:
        """Whether its rows come by key."""
        return any(each.key is not None for each in self.inputs)


@dataclass(frozen=True, slots=True)
class LogicalSink:
    name: str
    config: KafkaSinkSpec | FileSinkSpec | PrintSinkSpec | BlackholeSinkSpec | SuppliedSink
    connection: KafkaConnectionSpec | None
    streams: tuple[StreamRef, ...]
    schema: Schema
    parallelism: int
    changelog: Changelog | None = None  # of its input
    carries_errors: bool = False  # its input is `.errors` streams: a Kafka sink writes the original records


@dataclass(frozen=True, slots=True)
class LogicalGraph:
    pipeline: str
    job: JobSpec
    sources: Mapping[str, LogicalSource]
    steps: Mapping[str, LogicalStep]
    sinks: Mapping[str, LogicalSink]
    tests: tuple[CaseSpec, ...] = ()
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)  # resolved secret values, to redact from logs


Exchange = Literal["forward", "rebalance", "hash"]
