"""An operator is pure dataflow: frames and watermarks in, tagged frames out.

No clock, no event loop, no I/O but its own state. It runs on a worker thread, one call at a time.
Results are generators so that a closing window of any size leaves in bounded pieces: whoever drives
the chain may stop between two outputs to wait for room downstream.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import polars as pl

from operators.element import EventTimeMs, OutputTag, Schema
from operators.explanation import Explanation
from state.backend import StateBackend
from state.key_group import KeyGroupRange


class Output(NamedTuple):
    """A frame (with hidden columns, never empty) for one of the operator's output streams."""

    tag: OutputTag
    frame: pl.DataFrame


@dataclass(slots=True)
class Counters:
    """The fate of rows, for the record ledger and the metrics; read between calls, only ever grows.

    Each row that comes in is one of `filtered` (left out rightly: a condition, a duplicate, no partner), `late`,
    `errors`, `taken`, or passes through. `taken`: it went into state, was folded into it, or stands for other rows
    than itself; `made`: rows that come of those, whatever becomes of them then. So rows in = rows out + filtered +
    late + errors + taken − made. Each is counted where it is decided, never as what the others leave over.
    """

    filtered: int = 0
    late: int = 0
    errors: int = 0
    taken: int = 0
    made: int = 0
    last_error: str = ""  # of the newest of `errors`: what was wrong, without the row

    def result(self, frame: pl.DataFrame) -> Output:
        """Rows that are made, and given out."""
        self.made += frame.height
        return Output("main", frame)


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """What an operator subtask is given when it is created."""

    step: str
    subtask: int
    max_parallelism: int
    groups: KeyGroupRange
    state: StateBackend | None  # None for stateless operators
    memory_rows_max: int = 2_000_000  # partial rows kept in memory before they are spilled to `state`
    counters: Counters = field(default_factory=Counters)


class Operator(Protocol):
    """One operator subtask."""

    def process(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch. `watermark` is the subtask's at its arrival."""

    def on_watermark(self, watermark: EventTimeMs) -> Iterator[Output]:
        """Event time has come to `watermark` (strictly ascending; WATERMARK_MAX at the end of input)."""

    def prepare_snapshot(self) -> Mapping[str, Any]:
        """Write what is only in memory to the state backend; return the small rest, JSON-ready."""

    def restore(self, snapshots: list[Mapping[str, Any]]) -> None:
        """Called once, before any row, with what `prepare_snapshot` returned on each old subtask
        whose key groups intersect ours (just one unless rescaled); state is already in place."""


@runtime_checkable
class TwoInputOperator(Operator, Protocol):
    """An operator with a left and a right input: `process` takes left rows, `process_right` right ones.
    The watermark is the minimum of both."""

    def process_right(self, frame: pl.DataFrame, watermark: EventTimeMs) -> Iterator[Output]:
        """Take one batch of the right input."""


@runtime_checkable
class HoldsWatermark(Protocol):
    """An operator whose results may be older than the watermark it has seen."""

    def output_watermark(self, watermark: EventTimeMs) -> EventTimeMs:
        """What may be promised downstream once `on_watermark(watermark)` has given its results: never
        descending, at most `watermark`; WATERMARK_MAX for WATERMARK_MAX."""


@runtime_checkable
class UsesProcessingTime(Protocol):
    """An operator that acts by the wall clock, which comes to it as an argument."""

    def on_processing_time(self, now_ms: int) -> Iterator[Output]:
        """The clock has come to `now_ms` (ms since the epoch). Called before the first batch, then about every
        100 ms, between batches; never descending within one attempt."""


@runtime_checkable
class Closes(Protocol):
    """An operator that holds more than memory and state: a connection, a loop of its own."""

    def close(self) -> None:
        """Release it; called once, on the thread that calls everything else."""


@runtime_checkable
class ClosesWindows(Protocol):
    """An operator that keeps rows until the watermark says that a window, or what is like one, is complete."""

    def next_close(self) -> EventTimeMs | None:
        """The watermark at which results come next; None: nothing is open. Called between calls, for who looks
        at the job from outside."""


class OperatorSpec(Protocol):
    """An operator as planned: immutable, comparable, knows its output schema, makes subtasks."""

    @property
    def schema(self) -> Schema:
        """Visible output columns."""

    @property
    def stateful(self) -> bool:
        """Whether it needs a state backend."""

    def create(self, context: OperatorContext) -> Operator:
        """A new operator subtask."""

    def describe(self) -> str:
        """One line, e.g. `where eur > 0`; of a stateful one everything that stored state depends on."""

    def explained(self) -> Explanation:
        """What `explain` says of it."""
