"""One pipeline at work: a run of the embedded runner, with a status, metrics and local state of its own.

Nothing that happens in the run leaves it but as its status. A stop always comes to an end: what does not take its
last checkpoint in time is cancelled, and what cannot be cancelled (a call that never returns) is left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Literal

import structlog

from operators.element import CheckpointId
from state.failure import Failure
from streamproc.checkpoint.control import JobControl
from streamproc.checkpoint.manifest import Asker
from streamproc.observability.facts import JobFacts
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobFailure, JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph
from streamproc.runners.embedded import JobResult, RunOptions, UnexpectedFailure, run_pipeline

log = structlog.get_logger("streamproc.service")

LAST_CHECKPOINT_S: Final = 45.0  # more than the runner gives it: the runner tells better what went wrong
CANCELLING_S: Final = 10.0
_GRAIN_S: Final = 0.02
_WAITING_GRAIN_S: Final = 0.25


class PipelineSupervisor:
    """Starts and ends runs, one at a time. Callers take turns: they hold the pipeline's lock."""

    def __init__(self, name: str, registry: MetricRegistry, work_directory: Path) -> None:
        self.name = name
        self.left_behind = False  # a run that could not be ended; its thread is still in a call
        self._work_directory = work_directory
        self._metrics = PipelineMetrics(registry, name)
        self._observer = JobObserver(self._metrics, JobStatus(name, state="stopped"))
        self._control = JobControl()
        self._run: asyncio.Task[JobResult | None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def status(self) -> JobStatus:
        """What the run says of itself, or the last one said."""
        return self._observer.status

    @property
    def running(self) -> bool:
        """Whether there is a run, in whatever state."""
        return self._run is not None

    @property
    def draining(self) -> bool:
        """Whether the run has been asked to drain."""
        return self.running and self._control.stopping.is_set() and self._control.drain

    def facts(self) -> JobFacts | None:
        """What the run does now; None while no attempt is under way."""
        return None if self._observer.facts is None else self._observer.facts()

    def begin(
        self,
        graph: LogicalGraph,
        *,
        restore_from: int | None = None,
        begun: bool = False,
        dropped: frozenset[str] = frozenset(),
        on_restored: Callable[[], Awaitable[None]] | None = None,
        then: Literal["stop", "drain"] | None = None,
    ) -> None:
        """Start a run; there must be none. `begun` as in `RunOptions`. `then`: what it does as soon as it reads."""
        assert self._run is None, "a run is ended before the next begins"
        self.status.state, self.status.message = "starting", ""
        self._control = JobControl()
        options = RunOptions(
            restore_from=None if restore_from is None else CheckpointId(restore_from),
            work_directory=self._work_directory,
            control=self._control,
            dropped=dropped,
            on_restored=on_restored,
            begun=begun,
        )
        run = self._supervised(graph, options, self._observer)
        self._run = asyncio.create_task(run, name=f"pipeline {self.name}")
        self._run.add_done_callback(self._ended)
        if then is not None:
            stopping = self._stop_once_running(self._run, drain=then == "drain")
            self._stopping = asyncio.create_task(stopping, name=f"{then} {self.name}")

    async def under_way(self, timeout_s: float) -> None:
        """Until the run is no longer starting, at most so long."""
        until = time.monotonic() + timeout_s
        while self._run is not None and self.status.state == "starting" and time.monotonic() < until:
            await asyncio.wait({self._run}, timeout=_GRAIN_S)  # a status tells nobody that it has changed

    async def savepoint(self, by: Asker = "user") -> CheckpointId:
        """A checkpoint that the job never removes. Raises SavepointFailed."""
        return await self._control.savepoint(by)

    def drain(self) -> None:
        """Ask the run to end its input and then itself."""
        self._control.stop(drain=True)

    async def ended(self) -> None:
        """Until there is no run."""
        if self._run is not None:
            await asyncio.wait({self._run})

    async def end(self) -> None:
        """Stop with a last checkpoint, if that can be had; in any case there is no run afterwards."""
        run = self._run
        if run is None:
            return
        if self._stopping is not None:
            self._stopping.cancel()
        self._control.stop()
        await asyncio.wait({run}, timeout=LAST_CHECKPOINT_S)
        if not run.done():
            log.warning("the pipeline does not stop, its run is cancelled", pipeline=self.name)
            run.cancel()
            await asyncio.wait({run}, timeout=CANCELLING_S)
        if not run.done():
            self._leave_behind(run)
        elif self._run is run:
            self._ended(run)

    def fail(self, failure: Failure) -> None:
        """It cannot even begin."""
        self.status.state, self.status.message = "failed", str(failure)
        self.status.failures.append(JobFailure(time.time(), failure))

    def rest(self) -> None:
        """A failure that nobody wants mended any more: the pipeline is just stopped."""
        if not self.running and self.status.state == "failed":
            self.status.state = "stopped"

    async def _stop_once_running(self, run: asyncio.Task[JobResult | None], *, drain: bool) -> None:
        while not run.done() and self.status.state != "running":
            await asyncio.wait({run}, timeout=_WAITING_GRAIN_S)
        self._control.stop(drain=drain)

    def _leave_behind(self, run: asyncio.Task[JobResult | None]) -> None:
        """What it still writes goes to an observer nobody looks at; its claim is fenced by the next attempt's."""
        log.error("the pipeline's run cannot be ended: a call in it does not return", pipeline=self.name)
        run.remove_done_callback(self._ended)
        self._run = None
        self.left_behind = True
        self._observer = JobObserver(self._metrics, JobStatus(self.name))
        self.fail(UnexpectedFailure("the run could not be ended: a call in it has not returned, and was left behind"))

    def _ended(self, run: asyncio.Task[JobResult | None]) -> None:
        self._run = None
        self._observer.facts = None

    async def _supervised(self, graph: LogicalGraph, options: RunOptions, observer: JobObserver) -> JobResult | None:
        structlog.contextvars.bind_contextvars(pipeline=self.name)  # of this task and those it starts
        status = observer.status
        try:
            return await run_pipeline(graph, options, observer)
        except asyncio.CancelledError:
            status.state, status.message = "stopped", "it was stopped without a last checkpoint: that took too long"
            return None
        except BaseException as error:  # a run that is gone must not seem to run, whatever ended it
            log.error("the pipeline has ended unexpectedly", exc_info=error)
            failure = as_failure(error)
            status.state, status.message = "failed", str(failure)
            status.failures.append(JobFailure(time.time(), failure))
            return None


def as_failure(error: BaseException) -> Failure:
    """What nobody foresaw is ours, until shown otherwise."""
    return error if isinstance(error, Failure) else UnexpectedFailure(f"{type(error).__name__}: {error}")
