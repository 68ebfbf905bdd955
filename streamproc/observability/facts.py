"""What a running job is doing at this moment, as plain facts: what `why`, the page and the status are made from.

Taken between two turns of the event loop, so one `JobFacts` is consistent in itself. Times of day are event
times in ms since the epoch; `…_s` are seconds of the process's own clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from operators.connector import Position, SplitId
from operators.element import EventTimeMs

Doing = Literal["starting", "waiting for input", "computing", "waiting for room", "writing", "waiting for peers"]


@dataclass(frozen=True, slots=True)
class Lateness:
    """How far rows came behind the highest event time their split had shown before: `counts[i]` rows were behind by
    at most `bounds_ms[i]` (and more than the bound before); `counts[-1]` by more than all of them. `rows`: all rows
    looked at, those in order among them (they are in `counts[0]`, behind by 0)."""

    bounds_ms: tuple[int, ...]
    counts: tuple[int, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """One split of a source. `watermark`: WATERMARK_MIN before its first row."""

    split: SplitId
    watermark: EventTimeMs
    silent_s: float  # since rows came last, counted while they could have come
    idle: bool  # silent for `idle_after`: holds nobody back
    finished: bool
    position: Position


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """One source subtask's reader. `listening`: whether rows would come if there were some."""

    source: str
    splits: tuple[SplitFacts, ...]
    out_of_order_ms: int | None  # None: no event time
    idle_after_ms: int | None
    lag_records: int | None
    listening: bool
    bounded: bool
    lateness: Lateness | None


@dataclass(frozen=True, slots=True)
class InputFacts:
    """One input channel of a subtask. `held_back`: not read until the other inputs have the same barrier."""

    upstream: str  # vertex
    index: int
    port: int
    watermark: EventTimeMs
    idle: bool
    rows_waiting: int
    held_back: bool


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step (or source, or sink) in one subtask: rows since the subtask started. `held`: taken into state, less
    made from it. `next_close`: the watermark at which something closes next; None: nothing is open, or it is no
    window. `waits`: it asks something outside (an async function, HTTP)."""

    node: str
    rows_in: int
    rows_out: int
    filtered: int
    late: int
    errors: int
    held: int
    next_close: EventTimeMs | None = None
    state_bytes: int | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class SubtaskFacts:
    """One subtask. `busy`, `backpressured`, `idle`: shares of the last ten seconds or so, together about 1. `toward`:
    the vertex or sink that `doing` is about."""

    vertex: str
    index: int
    nodes: tuple[str, ...]
    watermark: EventTimeMs
    doing: Doing
    doing_s: float
    toward: str | None
    busy: float
    backpressured: float
    idle: float
    source: SourceFacts | None
    inputs: tuple[InputFacts, ...]
    steps: tuple[StepFacts, ...]
    edge_rows: Mapping[tuple[str, str], int]  # rows sent since the subtask started, by (stream, downstream vertex)


@dataclass(frozen=True, slots=True)
class PendingCheckpoint:
    """The checkpoint under way: how long it has taken so far, and the subtasks that have not acknowledged."""

    seconds: float
    unacknowledged: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A running job. `taken_ms`: wall clock, ms since the epoch. `checkpoint_pending_s`: how long the checkpoint
    under way has taken so far, with the subtasks that have not acknowledged; None: none is."""

    pipeline: str
    taken_ms: int
    subtasks: tuple[SubtaskFacts, ...]
    checkpoint_pending_s: float | None = None
    unacknowledged: tuple[tuple[str, int], ...] = ()
