"""The logical graph: what a pipeline file means, once every fault in it has been ruled out.

Names are the identity of everything. The planner builds it, `explain` prints it, `physical` gives
it parallelism and chains, a runner runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from operators.connector import ErrorPolicy
from operators.element import OutputTag, Schema
from operators.operator import OperatorSpec
from operators.types import FieldType
from streamproc.pipeline.spec import (
    BlackholeSinkSpec,
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
class EventTime:
    """Where event time is and how a split's watermark follows it."""

    column: str
    out_of_order_ms: int = 0
    idle_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class LogicalSource:
    name: str
    config: KafkaSourceSpec | FileSourceSpec | DatagenSourceSpec
    connection: KafkaConnectionSpec | None  # resolved, for kafka
    fields: Mapping[str, FieldType]  # the payload's declared fields
    schema: Schema  # visible columns: payload, then metadata
    event_time: EventTime | None
    errors: ErrorPolicy
    parallelism: int
    bounded: bool


@dataclass(frozen=True, slots=True)
class LogicalStep:
    """`before` runs where the rows come from (ahead of the exchange); `operators` after it."""

    name: str
    inputs: tuple[StreamRef, ...]
    before: tuple[OperatorSpec, ...]
    key: tuple[str, ...] | None  # hash exchange by these columns; () one global group; None: no exchange
    operators: tuple[OperatorSpec, ...]
    schema: Schema
    errors: ErrorPolicy
    parallelism: int
    was: str | None = None


@dataclass(frozen=True, slots=True)
class LogicalSink:
    name: str
    config: KafkaSinkSpec | FileSinkSpec | PrintSinkSpec | BlackholeSinkSpec
    connection: KafkaConnectionSpec | None
    inputs: tuple[StreamRef, ...]
    schema: Schema
    parallelism: int
    carries_errors: bool = False  # its input is `.errors` streams: a Kafka sink writes the original records


@dataclass(frozen=True, slots=True)
class LogicalGraph:
    pipeline: str
    job: JobSpec
    sources: Mapping[str, LogicalSource]
    steps: Mapping[str, LogicalStep]
    sinks: Mapping[str, LogicalSink]
    warnings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = field(default=(), repr=False)  # resolved secret values, to redact from logs

    def readers_of(self, ref: StreamRef) -> list[str]:
        """Names of the steps and sinks that read this stream."""
        nodes: list[LogicalStep | LogicalSink] = [*self.steps.values(), *self.sinks.values()]
        return [node.name for node in nodes if ref in node.inputs]


Exchange = Literal["forward", "rebalance", "hash"]
