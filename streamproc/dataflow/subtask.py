"""One subtask: an asyncio task that owns a chain of operators, their state, and a way out.

The task awaits; all columnar work runs through `compute`. Every batch's outputs are sent before the
next event is looked at, so barriers and watermarks keep their place in the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from operators.connector import KnowsOutside, SinkWriter
from operators.element import TIME, Barrier, CheckpointId, EventTimeMs, RecordBatch, Watermark
from operators.row_errors import RecordFailed
from state.failure import StoreRefused
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.dataflow.activity import Activity
from streamproc.dataflow.chain import SINK, Chain, Routed
from streamproc.dataflow.channel import Channel
from streamproc.dataflow.compute import Compute
from streamproc.dataflow.flow_report import FlowReport
from streamproc.dataflow.keyed_state import Cut, KeyedState, SnapshotUploader
from streamproc.dataflow.reachability import Outside
from streamproc.observability.facts import Doing, InputFacts, SourceFacts, StepFacts, SubtaskFacts
from streamproc.observability.ledger import StepLedger
from streamproc.observability.status import JobObserver

CLOCK_S = 0.1  # how often operators that use processing time are told it
FEW_ROWS = 1024  # batches of fewer rows than this together go through the chain in one call
_PIECE_ROWS = 131_072  # rows a chain may produce before they are sent on: bounds what a closing window holds in memory


class CheckpointReporter(Protocol):
    """Where a subtask says how its part of a checkpoint went."""

    def acknowledge(self, subtask: SubtaskId, checkpoint: CheckpointId, part: Mapping[str, Any]) -> None:
        """The part is durable."""

    def decline(self, checkpoint: CheckpointId, reason: str, *, refused: bool) -> None:
        """The part could not be written. The job goes on, unless the store `refused` it for good."""


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
        self._sink_metrics = metrics.subtask(parts.sink, parts.id[1]) if parts.sink else None
        self._report = FlowReport(parts.observer, parts.chain, parts.id[1], parts.nodes, parts.sink)
        self.activity = Activity()
        self._edge_rows = [0] * len(parts.outputs)
        self._sink_rows = self._sink_handed = 0  # written; handed to the writer
        self._closes: Mapping[str, EventTimeMs] = {}  # by step, as last known
        self._state_bytes: int | None = None  # as last known
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
        if self._parts.state is not None:
            self._parts.state.completed(checkpoint)
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
                piece, done = await self._compute(lambda: self.activity.timed(lambda: _take(results, _PIECE_ROWS)))
            except RecordFailed as failed:
                self._report.error(failed.step, None, None, failed.error, 1)
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
        results = self._chain.on_watermark(watermark.time)
        if self._chain.time_matters:
            await self._send(results)
        else:
            deque(results, maxlen=0)  # there are none, and no need for another thread
        self._broadcast(watermark)

    def _broadcast(self, watermark: Watermark) -> None:
        """To receivers, as far as operators allow."""
        allowed = Watermark(self._chain.watermark, watermark.idle)
        for channel in self._channels:
            channel.put_nowait(allowed)

    async def _tell_clock(self) -> None:
        """Let operators that use processing time see it, now and then."""
        if self._chain.uses_processing_time and time.monotonic() >= self._clock_due_s:
            self._clock_due_s = time.monotonic() + CLOCK_S
            await self._send(self._chain.on_processing_time(self._parts.now_ms()))

    # -- reporting

    def sample(self) -> None:
        """About once a second: what the status says is brought up to date."""
        self.activity.sample()
        self._report_flows()

    def report(self) -> None:
        """Bring the metrics up to this moment: when somebody looks at them, and at the end."""
        self._report_flows()
        self._report.time(self.activity.spent(), self.watermark)
        self._report.sink(self._sink_handed, self._sink_rows)
        if (state := self._parts.state) is not None and (size := self._size_of(state)) is not None:
            self._report.state(state.step, size)

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

    def outsides(self) -> Iterator[Outside]:
        """What it talks to that may not answer."""
        writer = self._parts.writer
        if self._sink_metrics is not None and self._parts.sink is not None:
            trouble = writer.unreachable if isinstance(writer, KnowsOutside) else lambda: None
            yield Outside("sink", self._parts.sink, trouble, self._sink_metrics.sink_reachable)

    def _report_flows(self) -> None:
        """Move counts into the metrics and the status."""
        self._report.flows()

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
        cut: Cut | None = None
        if state is not None:
            of_step = [chained.operator for chained in self._chain.operators if chained.step == state.step]
            self.activity.now("computing")
            cut = await self._compute(lambda: self.activity.timed(lambda: state.cut(checkpoint, of_step)))
            self._size_of(state)
        if self._parts.writer is not None and self._parts.sink is not None:
            self.activity.now("writing", self._parts.sink)
            prepared = list(await self._parts.writer.prepare(checkpoint))
            self.uncommitted = len(prepared)
            part["sinks"] = {self._parts.sink: prepared}
        upload = asyncio.create_task(self._finish_checkpoint(checkpoint, part, cut))
        self._uploads.add(upload)
        upload.add_done_callback(self._uploads.discard)

    async def _finish_checkpoint(self, checkpoint: CheckpointId, part: dict[str, Any], cut: Cut | None) -> None:
        state = self._parts.state
        try:
            if state is not None and cut is not None:
                files = await asyncio.to_thread(state.upload, cut, checkpoint, self._parts.uploader)
                part["steps"] = {state.step: state.acknowledged(checkpoint, cut, files)}
        except Exception as error:
            refused = isinstance(error, StoreRefused)
            self._parts.reporter.decline(checkpoint, f"{self.id[0]}[{self.id[1]}]: {error}", refused=refused)
            return
        self._parts.reporter.acknowledge(self.id, checkpoint, part)


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
