"""One subtask: an asyncio task that owns a chain of operators, their state, and a way out.

The task awaits; all columnar work runs through `compute`. Every batch's outputs are sent before the
next event is looked at, so barriers and watermarks keep their place in the stream.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from operators.connector import KnowsOutside, SinkWriter
from operators.element import TIME, WATERMARK_MIN, Barrier, CheckpointId, EventTimeMs, RecordBatch, Watermark
from operators.row_errors import RecordFailed
from state.backend import LocalSnapshot, StateBackend
from state.failure import StoreRefused
from state.key_group import KeyGroupRange
from state.snapshot import StoredFile
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.checkpoint.manifest import file_entry
from streamproc.dataflow.activity import Activity, TimeSpent
from streamproc.dataflow.chain import SINK, Chain, Routed
from streamproc.dataflow.channel import Channel
from streamproc.dataflow.compute import Compute
from streamproc.dataflow.gate import BarrierEvent, BatchEvent, InputGate
from streamproc.dataflow.reachability import Outside
from streamproc.observability.facts import Doing, InputFacts, SourceFacts, StepFacts, SubtaskFacts
from streamproc.observability.ledger import StepLedger
from streamproc.observability.metrics import SubtaskMetrics
from streamproc.observability.status import JobObserver, RecordError

_CLOCK_S = 0.1  # how often operators that use processing time are told it
_PIECE_ROWS = 131_072  # rows a chain may produce before they are sent on: bounds what a closing window holds in memory


class CheckpointReporter(Protocol):
    """Where a subtask says how its part of a checkpoint went."""

    def acknowledge(self, subtask: SubtaskId, checkpoint: CheckpointId, part: Mapping[str, Any]) -> None:
        """The part is durable."""

    def decline(self, checkpoint: CheckpointId, reason: str, *, refused: bool) -> None:
        """The part could not be written. The job goes on, unless the store `refused` it for good."""


class SnapshotUploader(Protocol):
    """Makes a local cut of a state backend durable (blocking: called on a worker thread)."""

    def upload(
        self, snapshot: LocalSnapshot, known: Mapping[str, StoredFile], checkpoint: CheckpointId
    ) -> dict[str, StoredFile]:
        """Upload what `known` does not have; where each file is now."""


@dataclass(slots=True)
class KeyedState:
    """The state backend of one stateful step in this subtask, and what of it is already stored."""

    step: str
    describe: str
    backend: StateBackend
    directory: Path
    groups: KeyGroupRange
    stored: dict[str, StoredFile] = field(default_factory=dict)  # of the last completed checkpoint
    uploaded: dict[CheckpointId, dict[str, StoredFile]] = field(default_factory=dict)


@dataclass(slots=True)
class SubtaskParts:
    """What a subtask is made of; built by the deployment."""

    id: SubtaskId
    nodes: Sequence[str]  # logical nodes in the chain; the first names the subtask's own metrics
    chain: Chain
    outputs: Sequence[Sequence[Channel]]  # by route, by receiver
    edges: Sequence[tuple[str, str]]  # by route: the stream, and the vertex it goes to
    waiting_steps: frozenset[str]  # steps that ask something outside
    state: KeyedState | None
    writer: SinkWriter | None
    sink: str | None
    reporter: CheckpointReporter
    uploader: SnapshotUploader
    observer: JobObserver
    compute: Compute
    now_ms: Callable[[], int]  # the wall clock


class Subtask:
    """Common to subtasks that read a source and those that read a gate."""

    def __init__(self, parts: SubtaskParts) -> None:
        self._parts = parts
        self.id = parts.id
        self._chain = parts.chain
        self._compute = parts.compute
        self._clock_due_s = 0.0
        self._channels = [channel for route in parts.outputs for channel in route]
        self._uploads: set[asyncio.Task[None]] = set()
        metrics = parts.observer.metrics
        self._own = metrics.subtask(parts.nodes[0], parts.id[1])
        self._flow_metrics: dict[str, SubtaskMetrics] = {
            step: metrics.subtask(step, parts.id[1]) for step in self._chain.flows
        }
        self._reported: dict[str, list[int]] = {step: [0, 0, 0, 0, 0] for step in self._chain.flows}
        self._sink_metrics = metrics.subtask(parts.sink, parts.id[1]) if parts.sink else None
        self.activity = Activity()
        self._edge_rows = [0] * len(parts.outputs)
        self._sink_rows = self._sink_handed = 0  # written; handed to the writer
        self._closes: Mapping[str, EventTimeMs] = {}  # by step, as last known
        self._state_bytes: int | None = None  # as last known
        self._node_metrics = [metrics.subtask(node, parts.id[1]) for node in parts.nodes]
        self._reported_spent = TimeSpent()
        self._reported_sink = 0, 0
        self._closed = False
        self.uncommitted = 0  # what the last checkpoint prepared, until it is committed

    async def open(self) -> None:
        """Connect the way out."""
        if self._parts.writer is not None:
            await self._parts.writer.open()

    async def run(self) -> None:
        """Work until cancelled."""
        raise AssertionError("a subtask reads a source or a gate")

    async def close(self) -> None:
        """Release everything; state and transactions stay as they are. Raises CallStuck where a user's function does
        not return: what it works on is not touched then."""
        self._closed = True
        for upload in self._uploads:
            upload.cancel()
        await asyncio.gather(*self._uploads, return_exceptions=True)
        if self._parts.writer is not None:
            await self._parts.writer.close()
        if not await self._compute.settled():
            self._compute.close(self._release)  # should the call return after all
            raise self._compute.stuck()
        await self._compute(self._release)
        self._compute.close()

    def _release(self) -> None:
        self._chain.close()
        if self._parts.state is not None:
            self._parts.state.backend.close()

    async def on_complete(self, checkpoint: CheckpointId) -> None:
        """The checkpoint is complete: commit, and build the next increment on it."""
        state = self._parts.state
        if state is not None and checkpoint in state.uploaded:
            state.stored = state.uploaded.pop(checkpoint)
            for older in [c for c in state.uploaded if c < checkpoint]:
                del state.uploaded[older]
        if self._parts.writer is not None:
            await self._parts.writer.commit(checkpoint)
            self.uncommitted = 0

    # -- facts

    def facts(self) -> SubtaskFacts:
        """What it is doing now. On the event loop, while a worker thread may run the chain: what operators say of
        themselves is as of their last call then."""
        activity, shares = self.activity, self.activity.shares()
        edges: dict[tuple[str, str], int] = {}
        for edge, rows in zip(self._parts.edges, self._edge_rows, strict=True):
            edges[edge] = edges.get(edge, 0) + rows
        doing = self._doing()
        return SubtaskFacts(
            vertex=self.id[0],
            index=self.id[1],
            nodes=tuple(self._parts.nodes),
            watermark=self._chain.watermark,
            doing=doing,
            doing_s=activity.for_s,
            toward=activity.toward,
            busy=shares.busy,
            backpressured=shares.backpressured,
            idle=shares.idle,
            source=self._source_facts(),
            inputs=self._input_facts(),
            steps=tuple(self._step_facts()),
            edge_rows=edges,
        )

    def _doing(self) -> Doing:
        return self.activity.doing

    def _source_facts(self) -> SourceFacts | None:
        return None

    def _input_facts(self) -> tuple[InputFacts, ...]:
        return ()

    def _step_facts(self) -> Iterator[StepFacts]:
        state = self._parts.state
        if not self._compute.under_way and not self._closed:
            self._closes = self._chain.next_closes()
        size = None if state is None else self._size_of(state)
        for step, flow in self._chain.flows.items():
            counters = [op.counters for op in self._chain.all_operators if op.step == step]
            yield StepFacts(
                node=step,
                rows_in=flow.rows_in,
                rows_out=flow.rows_out,
                filtered=sum(each.filtered for each in counters),
                late=sum(each.late for each in counters),
                errors=sum(each.errors for each in counters),
                held=sum(each.taken - each.made for each in counters),
                next_close=self._closes.get(step),
                state_bytes=size if state is not None and state.step == step else None,
                waits=step in self._parts.waiting_steps,
            )
        if self._parts.sink is not None:
            yield StepFacts(self._parts.sink, self._sink_rows, self._sink_rows, 0, 0, 0, 0)

    # -- sending

    async def _send(self, results: Iterator[Routed]) -> None:
        """Drive `results` piece by piece on a worker thread; send each piece before the next is made."""
        done = False
        while not done:
            self.activity.now("computing")
            try:
                piece, done = await self._compute(lambda: _take(results, _PIECE_ROWS))
            except RecordFailed as failed:
                self._note_error(failed.step, None, None, failed.error, 1)
                raise
            for routed in piece:
                if routed.route == SINK:
                    await self._write(routed.frame)
                else:
                    await self._put(routed)

    async def _put(self, routed: Routed) -> None:
        channel = self._parts.outputs[routed.route][routed.receiver]
        if not channel.has_room:
            self.activity.now("waiting for room", self._parts.edges[routed.route][1])
            await channel.wait_room()
        channel.put_nowait(RecordBatch(routed.frame))
        self._edge_rows[routed.route] += routed.frame.height

    async def _write(self, frame: pl.DataFrame) -> None:
        assert self._parts.writer is not None
        assert self._sink_metrics is not None
        self.activity.now("writing", self._parts.sink)
        self._sink_handed += frame.height
        await self._parts.writer.write(frame)
        self._sink_rows += frame.height
        self._parts.observer.status.records_out += frame.height
        if TIME in frame.columns:
            times = frame.get_column(TIME)
            now_s = time.time()
            for moment in (times.min(), times.max()):
                if isinstance(moment, int):
                    self._sink_metrics.end_to_end_latency.observe(max(0.0, now_s - moment / 1000))

    async def _advance(self, watermark: Watermark) -> None:
        """Let operators see the watermark, then receivers."""
        await self._send(self._chain.on_watermark(watermark.time))
        watermark = Watermark(self._chain.watermark, watermark.idle)
        for channel in self._channels:
            channel.put_nowait(watermark)

    async def _tell_clock(self) -> None:
        """Let operators that use processing time see it, now and then."""
        if self._chain.uses_processing_time and time.monotonic() >= self._clock_due_s:
            self._clock_due_s = time.monotonic() + _CLOCK_S
            await self._send(self._chain.on_processing_time(self._parts.now_ms()))

    # -- reporting

    def sample(self) -> None:
        """About once a second: what the status says is brought up to date."""
        self.activity.sample()
        self._report_flows()

    def report(self) -> None:
        """Bring the metrics up to this moment: when somebody looks at them, and at the end."""
        self._report_flows()
        spent = self.activity.spent()
        seconds = [now - then for now, then in zip(spent, self._reported_spent, strict=True)]
        self._reported_spent = spent
        watermark = self.watermark
        for metrics in self._node_metrics:
            metrics.spent(*seconds)
            if watermark > WATERMARK_MIN or metrics.has_watermark:
                metrics.set_watermark(watermark)
        if self._sink_metrics is not None:
            handed, taken = self._reported_sink
            self._reported_sink = self._sink_handed, self._sink_rows
            self._sink_metrics.records_in.inc(self._sink_handed - handed)
            self._sink_metrics.records_out.inc(self._sink_rows - taken)
        if (state := self._parts.state) is not None and (size := self._size_of(state)) is not None:
            self._flow_metrics[state.step].state_bytes.set(size)

    @property
    def watermark(self) -> EventTimeMs:
        """What is promised to whoever comes after."""
        return self._chain.watermark

    @property
    def sink(self) -> str | None:
        """The sink it writes to."""
        return self._parts.sink

    def _size_of(self, state: KeyedState) -> int | None:
        """Bytes, as last seen while nothing was computed."""
        if not self._compute.under_way and not self._closed:
            self._state_bytes = state.backend.size_bytes()
        return self._state_bytes

    def _note_error(self, node: str, split: str | None, offset: int | None, error: str, records: int) -> None:
        self._parts.observer.status.errors.append(RecordError(time.time(), node, split, offset, error, records))

    def outsides(self) -> Iterator[Outside]:
        """What it talks to that may not answer."""
        writer = self._parts.writer
        if self._sink_metrics is not None and self._parts.sink is not None:
            trouble = writer.unreachable if isinstance(writer, KnowsOutside) else lambda: None
            yield Outside("sink", self._parts.sink, trouble, self._sink_metrics.sink_reachable)

    def _report_flows(self) -> None:
        """Move the chain's counts into the metrics."""
        status = self._parts.observer.status
        for step, flow in self._chain.flows.items():
            late = sum(op.counters.late for op in self._chain.all_operators if op.step == step)
            errors = sum(op.counters.errors for op in self._chain.all_operators if op.step == step)
            filtered = sum(op.counters.filtered for op in self._chain.all_operators if op.step == step)
            now = [flow.rows_in, flow.rows_out, late, errors, filtered]
            seen = self._reported[step]
            if now == seen:
                continue
            metrics = self._flow_metrics[step]
            metrics.records_in.inc(flow.rows_in - seen[0])
            metrics.records_out.inc(flow.rows_out - seen[1])
            metrics.late_records.inc(late - seen[2])
            metrics.error_records.inc(errors - seen[3])
            metrics.filtered_records.inc(filtered - seen[4])
            status.late_records += late - seen[2]
            status.error_records += errors - seen[3]
            if errors > seen[3]:
                text = next(op.counters.last_error for op in self._chain.all_operators if op.step == step)
                self._note_error(step, None, None, text, errors - seen[3])
            self._reported[step] = now

    # -- checkpoints

    def _accounts(self) -> dict[str, StepLedger]:
        """Of each node here since the subtask began; between batches."""
        accounts = self._chain.accounts()
        if (sink := self._parts.sink) is not None:
            written = StepLedger(self._sink_handed, self._sink_rows)
            accounts[sink] = accounts.get(sink, StepLedger()) + written
        return accounts

    async def _checkpoint(self, checkpoint: CheckpointId, part: dict[str, Any], alignment_s: float = 0.0) -> None:
        """Cut here: barrier on, state to disk, sink pre-committed; upload and acknowledge behind our back."""
        for channel in self._channels:
            channel.put_nowait(Barrier(checkpoint))
        part["alignment_s"] = alignment_s
        part["ledger"] = {node: account.as_json() for node, account in self._accounts().items()}
        state = self._parts.state
        snapshot: LocalSnapshot | None = None
        cut = state.directory / f"cut-{checkpoint}" if state else None
        operators: Mapping[str, Any] | None = None
        if state is not None and cut is not None:
            self.activity.now("computing")
            operators, snapshot = await self._compute(lambda: self._cut(state, cut))
            self._size_of(state)
        if self._parts.writer is not None and self._parts.sink is not None:
            self.activity.now("writing", self._parts.sink)
            prepared = list(await self._parts.writer.prepare(checkpoint))
            self.uncommitted = len(prepared)
            part["sinks"] = {self._parts.sink: prepared}
        upload = asyncio.create_task(self._finish_checkpoint(checkpoint, part, operators, snapshot))
        self._uploads.add(upload)
        upload.add_done_callback(self._uploads.discard)

    def _cut(self, state: KeyedState, cut: Path) -> tuple[Mapping[str, Any], LocalSnapshot]:
        small: Mapping[str, Any] = {}
        for chained in self._chain.operators:
            if chained.step == state.step:
                small = {**small, **chained.operator.prepare_snapshot()}
        return small, state.backend.snapshot(cut)

    async def _finish_checkpoint(
        self,
        checkpoint: CheckpointId,
        part: dict[str, Any],
        operators: Mapping[str, Any] | None,
        snapshot: LocalSnapshot | None,
    ) -> None:
        state = self._parts.state
        try:
            if state is not None and snapshot is not None:
                files = await asyncio.to_thread(self._upload, state, snapshot, checkpoint)
                state.uploaded[checkpoint] = files
                part["steps"] = {
                    state.step: {
                        "describe": state.describe,
                        "groups": [state.groups.first, state.groups.last],
                        "operator": operators,
                        "files": {name: file_entry(file) for name, file in files.items()},
                    }
                }
        except Exception as error:
            refused = isinstance(error, StoreRefused)
            self._parts.reporter.decline(checkpoint, f"{self.id[0]}[{self.id[1]}]: {error}", refused=refused)
            return
        self._parts.reporter.acknowledge(self.id, checkpoint, part)

    def _upload(self, state: KeyedState, snapshot: LocalSnapshot, checkpoint: CheckpointId) -> dict[str, StoredFile]:
        try:
            return self._parts.uploader.upload(snapshot, state.stored, checkpoint)
        finally:
            shutil.rmtree(snapshot.directory, ignore_errors=True)


class GateSubtask(Subtask):
    """A subtask that reads other subtasks."""

    def __init__(self, parts: SubtaskParts, gate: InputGate, senders: Sequence[SubtaskId]) -> None:
        """`senders`: whose the channels of the gate are."""
        super().__init__(parts)
        self._gate = gate
        self._senders = senders

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.activity.now("waiting for input")
            event = await self._gate.next_event(_CLOCK_S if self._chain.uses_processing_time else None)
            await self._tell_clock()
            if isinstance(event, BatchEvent):
                await self._send(self._chain.process(event.frame, event.watermark, event.others, event.port))
            elif isinstance(event, Watermark):
                await self._advance(event)
            elif event is not None:
                await self._on_barrier(event)

    async def _on_barrier(self, event: BarrierEvent) -> None:
        await self._checkpoint(event.checkpoint, {}, event.alignment_s)

    def report(self) -> None:
        super().report()
        self._own.channel_rows.set(self._gate.rows_waiting())

    def _input_facts(self) -> tuple[InputFacts, ...]:
        return tuple(
            InputFacts(
                sender[0], sender[1], seen.port, seen.watermark.time, seen.watermark.idle, seen.rows, seen.held_back
            )
            for sender, seen in zip(self._senders, self._gate.inputs(), strict=True)
        )


def _take(results: Iterator[Routed], rows_max: int) -> tuple[list[Routed], bool]:
    """The next outputs, up to about `rows_max` rows, and whether that was all."""
    piece: list[Routed] = []
    rows = 0
    for routed in results:
        piece.append(routed)
        rows += routed.frame.height
        if rows >= rows_max:
            return piece, False
    return piece, True
