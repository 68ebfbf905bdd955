"""Turns a physical graph and a restored checkpoint into subtasks wired with channels: one job attempt.

Order of recovery: local state is built, sinks finish the commits of the checkpoint and fence what an
earlier attempt left, writers open, and only then do sources read.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from operators.connector import Committable, Sink, Source, SourceReader, SplitId
from operators.element import WATERMARK_MIN, CheckpointId, EventTimeMs
from operators.operator import Counters, OperatorContext
from state.backend import LocalSnapshot, StateBackend
from state.key_group import KeyGroupRange, range_of_subtask
from state.restored_files import RestoredFiles
from state.rocksdb import RocksBackend
from state.snapshot import StoredFile, UploadId, upload
from state.store import CheckpointStore
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.checkpoint.manifest import Manifest, StepPart
from streamproc.connectors import make_sink, make_source
from streamproc.dataflow.chain import Chain, ChainedOperator, Route
from streamproc.dataflow.channel import Channel
from streamproc.dataflow.compute import CallStuck, Compute
from streamproc.dataflow.gate import InputGate
from streamproc.dataflow.gate_subtask import GateSubtask
from streamproc.dataflow.keyed_state import KeyedState
from streamproc.dataflow.partitioner import Forward, HashByKey, Partitioner, Rebalance
from streamproc.dataflow.reachability import Reachability
from streamproc.dataflow.source_alignment import SourceAlignment, SourceProgress
from streamproc.dataflow.source_subtask import RestoredSplit, SourceSubtask
from streamproc.dataflow.subtask import CheckpointReporter, Subtask, SubtaskParts
from streamproc.functions.loading import UserCode
from streamproc.observability.facts import JobFacts, PendingCheckpoint
from streamproc.observability.status import JobObserver
from streamproc.pipeline.logical import LogicalSource
from streamproc.pipeline.physical import Edge, PhysicalGraph, Stage, Vertex

_CHANNEL_BATCHES = 2  # a channel holds this many full batches: one being read, one waiting
_CHANNEL_BYTES_MAX = 16 << 20
_WATCH_S = 1.0
_MEMORY_ROWS_MAX = 2_000_000  # partial rows of one job kept in memory; beyond that they are in RocksDB only


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class StoreUploader:
    """Uploads local cuts to the checkpoint store."""

    store: CheckpointStore
    attempt: int

    def upload(
        self, snapshot: LocalSnapshot, known: Mapping[str, StoredFile], checkpoint: CheckpointId
    ) -> dict[str, StoredFile]:
        """See `state.snapshot.upload`."""
        return upload(self.store, snapshot, known, UploadId(self.attempt, checkpoint))


class Deployment:
    """The subtasks of one attempt. `open` connects, `close` releases; running them is the runner's."""

    def __init__(
        self,
        graph: PhysicalGraph,
        store: CheckpointStore,
        directory: Path,
        attempt: int,
        restored: Manifest | None,
        files: RestoredFiles,
        observer: JobObserver,
        *,
        committed: bool,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """`restored`: as `checkpoint.compatibility.fitted` gives it. `files`: those of it, fetched. `committed`: the
        sinks are known to have committed it.
        `now_ms`: the clock of processing time."""
        self._graph = graph
        self._files = files
        self._committed = committed
        self._directory = directory
        self._uploader = StoreUploader(store, attempt)
        self._restored = restored
        self._observer = observer
        self._now_ms = now_ms
        self._sinks: dict[str, Sink] = {}
        self._sources: dict[str, Source] = {}
        self._progress: dict[SubtaskId, SourceProgress] = {}
        self._watching: asyncio.Task[None] | None = None
        self._recovering = 0  # transactions of the restored checkpoint that are being committed
        self.subtasks: list[Subtask] = []
        self.pending: Callable[[], PendingCheckpoint | None] = lambda: None  # the driver's, once there is one

    @property
    def sources(self) -> list[SourceSubtask]:
        """Subtasks that read a source."""
        return [subtask for subtask in self.subtasks if isinstance(subtask, SourceSubtask)]

    async def build(self, reporter: CheckpointReporter) -> None:
        """Make every subtask, its state restored; nothing is connected yet."""
        logical = self._graph.logical
        self._sources = {name: make_source(source) for name, source in logical.sources.items()}
        self._sinks = {name: make_sink(logical.pipeline, sink) for name, sink in logical.sinks.items()}
        inputs = self._wire()
        with self._observer.metrics.building():
            for vertex in self._graph.vertices:
                for index in range(vertex.parallelism):
                    self.subtasks.append(await self._subtask(vertex, index, inputs, reporter))

    async def open(self) -> None:
        """Sinks recover, then everything connects."""
        self._observer.metrics.refresh = self.report
        self._watching = asyncio.create_task(self._watch())
        for name, sink in self._sinks.items():
            prepared: Sequence[Committable] = ()
            if self._restored is not None and not self._committed:
                prepared = self._restored.sinks.get(name, ())
            self._recovering = len(prepared)
            await sink.recover(prepared, self._graph.logical.sinks[name].parallelism)
        self._recovering = 0
        await asyncio.gather(*(subtask.open() for subtask in self.subtasks))

    async def close(self) -> None:
        """Release everything, in spite of failures. Raises CallStuck where that is not possible."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        closed = await asyncio.gather(*(subtask.close() for subtask in self.subtasks), return_exceptions=True)
        await asyncio.gather(*(sink.close() for sink in self._sinks.values()), return_exceptions=True)
        self._observer.metrics.refresh = lambda: None
        self.report()
        for outcome in closed:
            if isinstance(outcome, CallStuck):
                raise outcome

    def facts(self) -> JobFacts:
        """What the job is doing now; on the event loop."""
        pending = self.pending()
        return JobFacts(
            pipeline=self._graph.logical.pipeline,
            taken_ms=wall_clock_ms(),
            subtasks=tuple(subtask.facts() for subtask in self.subtasks),
            checkpoint_pending_s=None if pending is None else pending.seconds,
            unacknowledged=() if pending is None else pending.unacknowledged,
        )

    def report(self) -> None:
        """Bring metrics and status up to this moment."""
        for subtask in self.subtasks:
            subtask.report()
        uncommitted = self._recovering + sum(subtask.uncommitted for subtask in self.subtasks)
        self._observer.metrics.uncommitted_transactions.set(uncommitted)
        self._report_watermark()

    def _report_watermark(self) -> None:
        of_sinks = [s.watermark for s in self.subtasks if s.sink is not None and s.watermark > WATERMARK_MIN]
        self._observer.status.watermark_ms = min(of_sinks, default=self._observer.status.watermark_ms)

    async def _watch(self) -> None:
        """What is looked at about once a second."""
        outsides = [outside for subtask in self.subtasks for outside in subtask.outsides()]
        reachability = Reachability(outsides, self._observer.status)
        while True:
            reachability.look()
            for subtask in self.subtasks:
                subtask.sample()
            self._report_watermark()
            await asyncio.sleep(_WATCH_S)

    # -- wiring

    def _wire(self) -> dict[tuple[str, int], dict[tuple[str, int, int], Channel]]:
        """Channels into each subtask (vertex, index), by sender (vertex, route, sender's index)."""
        rows_max = _CHANNEL_BATCHES * self._graph.logical.job.batch.max_rows
        inputs: dict[tuple[str, int], dict[tuple[str, int, int], Channel]] = {}
        for vertex in self._graph.vertices:
            for route, edge in enumerate(vertex.edges):
                receivers = self._graph.vertex(edge.downstream).parallelism
                for sender in range(vertex.parallelism):
                    for receiver in range(receivers):
                        if edge.exchange == "forward" and sender != receiver:
                            continue
                        channel = Channel(rows_max, _CHANNEL_BYTES_MAX)
                        inputs.setdefault((edge.downstream, receiver), {})[vertex.name, route, sender] = channel
        return inputs

    async def _subtask(
        self,
        vertex: Vertex,
        index: int,
        inputs: Mapping[tuple[str, int], Mapping[tuple[str, int, int], Channel]],
        reporter: CheckpointReporter,
    ) -> Subtask:
        state = await self._state(vertex, index)
        # On a thread: to make an operator may be to execute a file of the user's.
        operators = [await asyncio.to_thread(self._operator, stage, vertex, index, state) for stage in vertex.stages]
        if state is not None and self._restored is not None:
            snapshots = [part.operator for part in self._parts_for(state.step, state.groups)]
            for stage, chained in zip(vertex.stages, operators, strict=True):
                if stage.spec.stateful and snapshots:
                    await asyncio.to_thread(chained.operator.restore, snapshots)
        routes = [
            Route(
                number,
                edge.stream,
                edge.downstream,
                [self._operator(stage, vertex, index, None) for stage in edge.before],
                self._partitioner(edge, index),
            )
            for number, edge in enumerate(vertex.edges)
        ]
        parts = SubtaskParts(
            id=(vertex.name, index),
            nodes=vertex.nodes,
            chain=Chain(
                operators,
                vertex.output,
                routes,
                sink=vertex.sink.name if vertex.sink else None,
                counted_by_sender=frozenset(e.port for _, e in self._graph.upstreams(vertex.name) if e.before),
            ),
            compute=_compute(vertex),
            now_ms=self._now_ms,
            outputs=[self._outputs(vertex, route, edge, index, inputs) for route, edge in enumerate(vertex.edges)],
            edges=[(str(edge.stream), edge.downstream) for edge in vertex.edges],
            waiting_steps=frozenset(stage.step for stage in vertex.stages if getattr(stage.spec, "waits", False)),
            state=state,
            writer=self._sinks[vertex.sink.name].writer(index, vertex.parallelism) if vertex.sink else None,
            sink=vertex.sink.name if vertex.sink else None,
            reporter=reporter,
            uploader=self._uploader,
            observer=self._observer,
        )
        if vertex.source is not None:
            reader = self._sources[vertex.source.name].reader(index, vertex.parallelism)
            return self._source_subtask(parts, vertex.source, reader)
        into = inputs[vertex.name, index]
        ports = [self._graph.vertex(sender).edges[route].port for sender, route, _ in into]
        senders = [(sender, number) for sender, _, number in into]
        return GateSubtask(parts, InputGate(list(into.values()), ports), senders)

    def _source_subtask(self, parts: SubtaskParts, source: LogicalSource, reader: SourceReader) -> SourceSubtask:
        restored: dict[SplitId, RestoredSplit] | None = None
        if self._restored is not None and source.name in self._restored.sources:
            restored = {
                SplitId(split): RestoredSplit(
                    known["position"],
                    None if known["max_time"] is None else EventTimeMs(known["max_time"]),
                    known["finished"],
                )
                for split, known in self._restored.sources[source.name].items()
            }
        batch = self._graph.logical.job.batch
        bounded = self._sources[source.name].bounded
        return SourceSubtask(parts, source, reader, batch, restored, self._alignment(parts.id), bounded=bounded)

    def _alignment(self, subtask: SubtaskId) -> SourceAlignment:
        """With every other source subtask whose rows come together with those of `subtask` somewhere."""
        name, index = subtask
        meeting = self._graph.meeting_sources(name)
        peers = [
            self._progress.setdefault((vertex.name, i), SourceProgress())
            for vertex in self._graph.vertices
            if vertex.name in meeting
            for i in range(vertex.parallelism)
            if (vertex.name, i) != (name, index)
        ]
        return SourceAlignment(self._progress.setdefault(subtask, SourceProgress()), peers)

    def _operator(self, stage: Stage, vertex: Vertex, index: int, state: KeyedState | None) -> ChainedOperator:
        max_parallelism = self._graph.logical.job.max_parallelism
        counters = Counters()
        context = OperatorContext(
            step=stage.step,
            subtask=index,
            max_parallelism=max_parallelism,
            groups=range_of_subtask(index, vertex.parallelism, max_parallelism),
            state=state.backend if state is not None and stage.spec.stateful else None,
            memory_rows_max=max(65_536, _MEMORY_ROWS_MAX // self._stateful_subtasks()),
            counters=counters,
        )
        return ChainedOperator(stage.step, stage.spec.create(context), counters)

    def _stateful_subtasks(self) -> int:
        return max(1, sum(v.parallelism for v in self._graph.vertices if any(s.spec.stateful for s in v.stages)))

    def _partitioner(self, edge: Edge, index: int) -> Partitioner:
        receivers = self._graph.vertex(edge.downstream).parallelism
        if edge.exchange == "forward":
            return Forward()
        if edge.exchange == "rebalance":
            return Rebalance(index, receivers)
        return HashByKey(edge.key, receivers, self._graph.logical.job.max_parallelism)

    def _outputs(
        self,
        vertex: Vertex,
        route: int,
        edge: Edge,
        index: int,
        inputs: Mapping[tuple[str, int], Mapping[tuple[str, int, int], Channel]],
    ) -> list[Channel]:
        receivers = range(self._graph.vertex(edge.downstream).parallelism)
        if edge.exchange == "forward":
            receivers = range(index, index + 1)
        return [inputs[edge.downstream, receiver][vertex.name, route, index] for receiver in receivers]

    # -- state

    async def _state(self, vertex: Vertex, index: int) -> KeyedState | None:
        stateful = [stage for stage in vertex.stages if stage.spec.stateful]
        if not stateful:
            return None
        assert len(stateful) == 1, "a keyed step begins a vertex of its own"
        stage = stateful[0]
        groups = range_of_subtask(index, vertex.parallelism, self._graph.logical.job.max_parallelism)
        directory = self._directory / f"{stage.step}-{index}"
        directory.mkdir(parents=True)
        parts = self._parts_for(stage.step, groups)
        backend = await asyncio.to_thread(self._backend, directory, groups, parts)
        state = KeyedState(stage.step, stage.spec.describe(), backend, directory, groups)
        if len(parts) == 1 and parts[0].groups == groups:
            state.stored = dict(parts[0].files)
        return state

    def _backend(self, directory: Path, groups: KeyGroupRange, parts: Sequence[StepPart]) -> StateBackend:
        database = directory / "db"
        if not parts:
            return RocksBackend.create(database, groups)
        if len(parts) == 1 and parts[0].groups == groups:
            self._files.place(parts[0].files, database)
            return RocksBackend.open_restored(database, groups)
        old = [directory / f"old-{number}" for number in range(len(parts))]
        for part, place in zip(parts, old, strict=True):
            self._files.place(part.files, place)
        backend = RocksBackend.restore_clipped(database, groups, old)
        for place in old:
            shutil.rmtree(place, ignore_errors=True)
        return backend

    def _parts_for(self, step: str, groups: KeyGroupRange) -> list[StepPart]:
        if self._restored is None:
            return []
        return [part for part in self._restored.steps.get(step, ()) if part.groups.intersects(groups)]


def _compute(vertex: Vertex) -> Compute:
    """Steps that ask something outside, or run a user's code, may take any time: they have a thread of their own."""
    user_code = [stage.step for stage in vertex.stages if isinstance(getattr(stage.spec, "code", None), UserCode)]
    waits = any(getattr(stage.spec, "waits", False) for stage in vertex.stages)
    return Compute(own_thread=waits, user_code=", ".join(dict.fromkeys(user_code)))
