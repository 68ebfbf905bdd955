"""Plays one test: a real job on the rows it gives, moved, checkpointed and crashed as it says.

Everything between two actions has come to rest before the next one begins, so what a test gives does not depend
on which thread was quicker. What brings the job to rest is a barrier: a checkpoint that is taken up to its
manifest, and then is not completed. A crash comes at just that point, the worst there is: every row is processed,
every sink has prepared, and nothing of it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from operators.element import EventTimeMs
from state.failure import Failure
from state.restored_files import RestoredFiles
from state.store import CheckpointStore
from streamproc.checkpoint.coordinator import Abort, Command, CreateManifest, Declined, Event
from streamproc.checkpoint.driver import CheckpointDriver
from streamproc.checkpoint.recovery import claim
from streamproc.dataflow.deployment import Deployment
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.cases import ends_by_itself
from streamproc.pipeline.logical import LogicalGraph, SuppliedSink, SuppliedSource
from streamproc.pipeline.physical import PhysicalGraph, plan_physical
from streamproc.pipeline.spec import ActionSpec, CaseSpec
from streamproc.runners.embedded import Reporter
from streamproc.testing.pipeline_collected import CollectingSink
from streamproc.testing.pipeline_compare import instant
from streamproc.testing.pipeline_given import GivenDecoder, GivenSource

CLOCK_BEGINS_MS: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
_ACTION_S: Final = 60.0  # how long one action may take
_CLOCK_GRAIN_S: Final = 0.12  # operators are told the time about every 100 ms
_NEVER_TOO_MANY: Final = 1 << 60

T = TypeVar("T")


class Stuck(Failure):
    """The job under test does not come to rest."""


class _SteppedDriver(CheckpointDriver):
    """Takes a checkpoint when told to; can hold one back right before its manifest."""

    _holds_back = False

    async def complete(self) -> None:
        """Take a checkpoint that counts."""
        if await self._once("periodic") is None:
            raise Stuck("a checkpoint of the test could not be completed")

    async def settle(self) -> None:
        """Let everything that was read come through to the sinks. Nothing of it counts yet."""
        self._holds_back = True
        try:
            await self._once("periodic")
        finally:
            self._holds_back = False

    async def _carry_out(self, command: Command) -> Event | None:
        if self._holds_back and isinstance(command, CreateManifest):
            return Declined(command.checkpoint, "only taken to come to rest", False)
        if self._holds_back and isinstance(command, Abort):
            return None  # as meant
        return await super()._carry_out(command)


@dataclass(slots=True)
class Scenario:
    """One test being played. `sinks`: what collects, by the name of its sink in the graph."""

    graph: PhysicalGraph
    sources: Mapping[str, GivenSource]
    directory: Path  # empty; checkpoints and state go here
    _now_ms: int = CLOCK_BEGINS_MS
    _attempts: int = 0
    _deployment: Deployment | None = None
    _driver: _SteppedDriver | None = None
    _tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def play(self, case: CaseSpec) -> None:
        """Everything the test does, up to a last checkpoint. Raises what makes the pipeline fail."""
        actions = [ActionSpec(given=case.given), ActionSpec(checkpoint=True), *case.then]
        if ends_by_itself(case):
            actions.append(ActionSpec(end=True))
        actions.append(ActionSpec(checkpoint=True))
        checkpointed = 0  # the actions before this one are part of the newest checkpoint
        async with AsyncExitStack() as running:
            running.push_async_callback(self._stop)
            await self._start()
            for index, action in enumerate(actions):
                if action.crash:
                    await self._stop()
                    await self._start()
                    for again in actions[checkpointed:index]:
                        if again.processing_time is None and not again.crash:  # the wall clock does not go back
                            await self._act(again)
                            await self._while_running(self._settle())
                    continue
                await self._act(action)
                if action.checkpoint:
                    checkpointed = index + 1
                elif not actions[index + 1].checkpoint:  # which brings the job to rest, too
                    await self._while_running(self._settle())

    async def _act(self, action: ActionSpec) -> None:
        """Begin what the action says; a checkpoint is taken when this is done."""
        assert self._driver is not None
        if action.checkpoint:
            await self._while_running(self._driver.complete())
        if action.given is not None:
            for name, rows in action.given.items():
                if name in self.sources and rows:
                    self.sources[name].give(rows)
        if action.watermark is not None:
            time = instant(action.watermark)
            assert time is not None, "checked before it is played"
            for source in self.sources.values():
                if source.source.event_time is not None:
                    source.move_watermark(EventTimeMs(int(time.timestamp() * 1000)))
        if action.end:
            for source in self.sources.values():
                source.end()
        if action.processing_time is not None:
            self._now_ms += action.processing_time
            await asyncio.sleep(_CLOCK_GRAIN_S)
        await self._while_running(self._taken(ended=bool(action.end)))

    async def _taken(self, *, ended: bool) -> None:
        """Until the sources have emitted everything."""
        assert self._deployment is not None
        for source in self.sources.values():
            await source.taken()
        if ended:
            for subtask in self._deployment.sources:
                await subtask.exhausted.wait()

    async def _settle(self) -> None:
        assert self._driver is not None
        await self._driver.settle()

    # -- attempts

    async def _start(self) -> None:
        """A new attempt, from the newest checkpoint."""
        logical = self.graph.logical
        self._attempts += 1
        local = self.directory / f"attempt-{self._attempts}"
        local.mkdir()
        store = CheckpointStore.open(f"file:{self.directory / 'checkpoints'}", logical.pipeline)
        files = RestoredFiles(store, local / "restored")
        claimed = await asyncio.to_thread(claim, store, None, fetch=lambda manifest: files.fetch(manifest.files()))
        observer = JobObserver(PipelineMetrics(MetricRegistry(), logical.pipeline), JobStatus(logical.pipeline))
        reporter = Reporter()
        deployment = Deployment(
            self.graph,
            store,
            local,
            claimed.attempt,
            claimed.restored,
            files,
            observer,
            committed=claimed.restored is not None,
            now_ms=lambda: self._now_ms,
        )
        self._deployment = deployment
        await deployment.build(reporter)
        files.remove()
        self._driver = reporter.driver = _SteppedDriver(
            logical.pipeline,
            claimed.attempt,
            logical.job.max_parallelism,
            logical.job.checkpoint,
            store,
            deployment.subtasks,
            claimed.next_checkpoint,
            observer,
        )
        await deployment.open()
        self._tasks = [asyncio.create_task(subtask.run()) for subtask in deployment.subtasks]

    async def _stop(self) -> None:
        """As when the process is killed: nothing more is written or committed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._deployment is not None:
            await self._deployment.close()
            self._deployment = None

    async def _while_running(self, doing: Coroutine[Any, Any, T]) -> T:
        """The result of `doing`, or the failure of a subtask that comes first."""
        task = asyncio.create_task(doing)
        try:
            done, _ = await asyncio.wait([task, *self._tasks], timeout=_ACTION_S, return_when=asyncio.FIRST_COMPLETED)
            for failed in done - {task}:
                failed.result()
            if not done:
                raise Stuck(f"the pipeline does not come to rest within {_ACTION_S:.0f} s")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def supplied(graph: LogicalGraph, collected: Sequence[str]) -> tuple[LogicalGraph, dict[str, GivenSource]]:
    """The same pipeline on sources and sinks in memory. `collected`: the sinks whose rows are kept."""
    job = graph.job.model_copy(
        update={
            "batch": graph.job.batch.model_copy(update={"max_delay": 0}),  # what is given is one batch
            "checkpoint": graph.job.checkpoint.model_copy(update={"tolerate_failures": _NEVER_TOO_MANY}),
        }
    )
    given = {name: GivenSource(source, GivenDecoder(source)) for name, source in graph.sources.items()}
    sources = {
        name: replace(
            source,
            config=SuppliedSource(given[name]),
            event_time=source.event_time and replace(source.event_time, idle_after_ms=None),  # no real time passes
            bounded=False,
        )
        for name, source in graph.sources.items()
    }
    sinks = {
        name: replace(sink, config=SuppliedSink(CollectingSink(keeps=name in collected)))
        for name, sink in graph.sinks.items()
    }
    return replace(graph, job=job, sources=sources, sinks=sinks), given


async def play_case(
    graph: LogicalGraph, collected: Mapping[str, str], case: CaseSpec, directory: Path
) -> dict[str, list[pl.DataFrame]]:
    """What each expected stream gave. `collected`: stream → the sink of `graph` that reads it."""
    runnable, sources = supplied(graph, list(collected.values()))
    await Scenario(plan_physical(runnable), sources, directory).play(case)
    frames: dict[str, list[pl.DataFrame]] = {}
    for stream, name in collected.items():
        config = runnable.sinks[name].config
        assert isinstance(config, SuppliedSink)
        assert isinstance(config.sink, CollectingSink)
        frames[stream] = config.sink.committed
    return frames
