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

from operators.connector import SinkWriter
from operators.element import TIME, Barrier, CheckpointId, RecordBatch, Watermark
from state.backend import LocalSnapshot, StateBackend
from state.failure import StoreRefused
from state.key_group import KeyGroupRange
from state.snapshot import StoredFile
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.checkpoint.manifest import file_entry
from streamproc.dataflow.chain import SINK, Chain, Routed
from streamproc.dataflow.channel import Channel
from streamproc.dataflow.compute import Compute
from streamproc.dataflow.gate import BarrierEvent, BatchEvent, InputGate
from streamproc.observability.metrics import SubtaskMetrics
from streamproc.observability.status import JobObserver

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
        self._reported: dict[str, list[int]] = {step: [0, 0, 0, 0] for step in self._chain.flows}
        self._sink_metrics = metrics.subtask(parts.sink, parts.id[1]) if parts.sink else None

    async def open(self) -> None:
        """Connect the way out."""
        if self._parts.writer is not None:
            await self._parts.writer.open()

    async def run(self) -> None:
        """Work until cancelled."""
        raise AssertionError("a subtask reads a source or a gate")

    async def close(self) -> None:
        """Release everything; state and transactions stay as they are."""
        for upload in self._uploads:
            upload.cancel()
        await asyncio.gather(*self._uploads, return_exceptions=True)
        if self._parts.writer is not None:
            await self._parts.writer.close()
        await self._compute(self._chain.close)
        if self._parts.state is not None:
            await self._compute(self._parts.state.backend.close)
        self._compute.close()

    async def on_complete(self, checkpoint: CheckpointId) -> None:
        """The checkpoint is complete: commit, and build the next increment on it."""
        state = self._parts.state
        if state is not None and checkpoint in state.uploaded:
            state.stored = state.uploaded.pop(checkpoint)
            for older in [c for c in state.uploaded if c < checkpoint]:
                del state.uploaded[older]
        if self._parts.writer is not None:
            await self._parts.writer.commit(checkpoint)

    # -- sending

    async def _send(self, results: Iterator[Routed]) -> None:
        """Drive `results` piece by piece on a worker thread; send each piece before the next is made."""
        done = False
        while not done:
            began = time.monotonic()
            piece, done = await self._compute(lambda: _take(results, _PIECE_ROWS))
            computed = time.monotonic()
            for routed in piece:
                if routed.route == SINK:
                    await self._write(routed.frame)
                else:
                    channel = self._parts.outputs[routed.route][routed.receiver]
                    await channel.wait_room()
                    channel.put_nowait(RecordBatch(routed.frame))
            self._own.busy_seconds.inc(computed - began)
            if piece:
                self._own.backpressured_seconds.inc(time.monotonic() - computed)

    async def _write(self, frame: pl.DataFrame) -> None:
        assert self._parts.writer is not None
        assert self._sink_metrics is not None
        self._sink_metrics.records_in.inc(frame.height)
        await self._parts.writer.write(frame)
        self._sink_metrics.records_out.inc(frame.height)
        self._parts.observer.status.records_out += frame.height
        if TIME in frame.columns:
            latest = frame.get_column(TIME).max()
            assert isinstance(latest, int)
            self._sink_metrics.end_to_end_latency.observe(max(0.0, time.time() - latest / 1000))

    async def _advance(self, watermark: Watermark) -> None:
        """Let operators see the watermark, then receivers."""
        await self._send(self._chain.on_watermark(watermark.time))
        watermark = Watermark(self._chain.watermark, watermark.idle)
        for channel in self._channels:
            channel.put_nowait(watermark)
        self._own.set_watermark(watermark.time)
        if self._sink_metrics is not None:
            self._sink_metrics.set_watermark(watermark.time)
            self._parts.observer.status.watermark_ms = watermark.time

    async def _tell_clock(self) -> None:
        """Let operators that use processing time see it, now and then."""
        if self._chain.uses_processing_time and time.monotonic() >= self._clock_due_s:
            self._clock_due_s = time.monotonic() + _CLOCK_S
            await self._send(self._chain.on_processing_time(self._parts.now_ms()))

    def _report_flows(self) -> None:
        """Move the chain's counts into the metrics."""
        status = self._parts.observer.status
        for step, flow in self._chain.flows.items():
            late = sum(op.counters.late for op in self._chain.all_operators if op.step == step)
            errors = sum(op.counters.errors for op in self._chain.all_operators if op.step == step)
            seen = self._reported[step]
            metrics = self._flow_metrics[step]
            metrics.records_in.inc(flow.rows_in - seen[0])
            metrics.records_out.inc(flow.rows_out - seen[1])
            metrics.late_records.inc(late - seen[2])
            metrics.error_records.inc(errors - seen[3])
            status.late_records += late - seen[2]
            status.error_records += errors - seen[3]
            self._reported[step] = [flow.rows_in, flow.rows_out, late, errors]

    # -- checkpoints

    async def _checkpoint(self, checkpoint: CheckpointId, part: dict[str, Any], alignment_s: float = 0.0) -> None:
        """Cut here: barrier on, state to disk, sink pre-committed; upload and acknowledge behind our back."""
        for channel in self._channels:
            channel.put_nowait(Barrier(checkpoint))
        part["alignment_s"] = alignment_s
        state = self._parts.state
        snapshot: LocalSnapshot | None = None
        cut = state.directory / f"cut-{checkpoint}" if state else None
        operators: Mapping[str, Any] | None = None
        if state is not None and cut is not None:
            operators, snapshot = await self._compute(lambda: self._cut(state, cut))
            self._flow_metrics[state.step].state_bytes.set(state.backend.size_bytes())
        if self._parts.writer is not None and self._parts.sink is not None:
            part["sinks"] = {self._parts.sink: list(await self._parts.writer.prepare(checkpoint))}
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

    def __init__(self, parts: SubtaskParts, gate: InputGate) -> None:
        super().__init__(parts)
        self._gate = gate

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            waited = time.monotonic()
            event = await self._gate.next_event(_CLOCK_S if self._chain.uses_processing_time else None)
            self._own.idle_seconds.inc(time.monotonic() - waited)
            await self._tell_clock()
            if isinstance(event, BatchEvent):
                await self._send(self._chain.process(event.frame, event.watermark, event.others, event.port))
            elif isinstance(event, Watermark):
                await self._advance(event)
            elif event is not None:
                await self._on_barrier(event)
            self._report_flows()
            self._own.channel_rows.set(self._gate.rows_waiting())

    async def _on_barrier(self, event: BarrierEvent) -> None:
        await self._checkpoint(event.checkpoint, {}, event.alignment_s)


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
