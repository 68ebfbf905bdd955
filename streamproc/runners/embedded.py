"""Runs one pipeline in this process: attempts, each from the newest checkpoint, until it ends or gives up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog

from operators.element import CheckpointId
from state.failure import CorruptCheckpoint, Failure
from state.restored_files import RestoredFiles
from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import fitted
from streamproc.checkpoint.control import JobControl
from streamproc.checkpoint.coordinator import SubtaskId
from streamproc.checkpoint.driver import CheckpointDriver, Ending
from streamproc.checkpoint.manifest import NOTHING_YET, Manifest, committed_name
from streamproc.checkpoint.recovery import Claim, Superseded, claim, newer_attempt, superseded_text
from streamproc.dataflow.deployment import Deployment
from streamproc.dataflow.subtask import Subtask
from streamproc.observability.status import JobFailure, JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.physical import PhysicalGraph, plan_physical
from streamproc.runners.local_directory import local_directory
from streamproc.runners.restart import GiveUp, RestartPolicy

log = structlog.get_logger("streamproc.job")

_STOP_DEADLINE_S = 30.0  # after a stop was asked for, how long its last checkpoint may take
_OVERDUE_GRAIN_S = 0.5
_PASSED_OVER = "checkpoint damaged, going on from an older one; results since it may appear twice"
_IDLE_S = 2.0  # `until_idle`: no rows for this long, and nothing left to read


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run, beside what the pipeline file says."""

    checkpoints: str | None = None  # URL; overrides job.checkpoint.storage
    restore_from: CheckpointId | None = None  # None: the newest
    until_idle: bool = False
    work_directory: Path = Path(".streamproc/state")
    control: JobControl = field(default_factory=JobControl)
    dropped: frozenset[str] = frozenset()  # nodes whose stored state may be lost, where it does not fit any more
    on_restored: Callable[[], Awaitable[None]] | None = None  # an attempt has recorded what it goes on from; once
    begun: bool = False  # an earlier run's attempt has: to find nothing in the store is a failure


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a run ended. `finished`: bounded input is through; `stopped`: asked to, or idle; `drained`: asked to, and all
    that was read has come out."""

    status: Literal["finished", "stopped", "drained", "failed"]
    checkpoint: CheckpointId | None
    failure: Failure | None = None
    already_finished: bool = False  # an earlier run had finished; nothing was done now


class UnexpectedFailure(Failure):
    """An exception nobody foresaw: ours, until shown otherwise."""

    retry_helps = True


class Reporter:
    """Hands acknowledgements to a driver that is made after the subtasks."""

    driver: CheckpointDriver

    def acknowledge(self, subtask: SubtaskId, checkpoint: CheckpointId, part: Mapping[str, Any]) -> None:
        self.driver.acknowledge(subtask, checkpoint, part)

    def decline(self, checkpoint: CheckpointId, reason: str, *, refused: bool) -> None:
        self.driver.decline(checkpoint, reason, refused=refused)


class _Wanted:
    """The checkpoint that was asked for, until an attempt has recorded that it goes on from it: from then on the
    newest of that lineage is the one, for an attempt that fails may have completed newer ones. `begun`: an attempt has
    recorded that, in this run or an earlier one."""

    def __init__(self, options: RunOptions) -> None:
        self.checkpoint = options.restore_from
        self.begun = options.begun
        self._on_restored = options.on_restored

    async def recorded(self) -> None:
        """The claim is durable; nothing has been done from it yet."""
        self.checkpoint, self.begun = None, True
        if self._on_restored is not None:
            await self._on_restored()
            self._on_restored = None


async def run_pipeline(graph: LogicalGraph, options: RunOptions, observer: JobObserver) -> JobResult:
    """Run until the end of bounded input, a stop, or a failure that starting again cannot mend."""
    try:
        return await _attempts(graph, options, observer)
    finally:
        options.control.refuse("the job has ended")
        observer.metrics.ended()


async def _attempts(graph: LogicalGraph, options: RunOptions, observer: JobObserver) -> JobResult:
    physical = plan_physical(graph)
    policy = RestartPolicy(graph.job.restart)
    status, metrics = observer.status, observer.metrics
    wanted = _Wanted(options)
    while True:
        began, checkpoints = time.monotonic(), status.checkpoints
        try:
            store = await asyncio.to_thread(_open_store, graph, options)
            async with local_directory(options.work_directory, graph.pipeline) as directory:
                result = await _attempt(physical, options, observer, store, directory, wanted)
            status.state = result.status
            return result
        except Exception as error:
            failure = _as_failure(error)
        finally:
            metrics.up.set(0)
        status.failures.append(JobFailure(time.time(), failure))
        decision = policy.on_failure(failure, time.monotonic() - began, status.checkpoints - checkpoints)
        if isinstance(decision, GiveUp):
            reason = f"{failure} ({decision.reason})" if failure.retry_helps else str(failure)
            status.state, status.message = "failed", reason
            return JobResult("failed", None if status.checkpoint is None else CheckpointId(status.checkpoint), failure)
        if options.control.stopping.is_set():
            log.warning("stopped without a last checkpoint", reason=str(failure))
            status.state = "stopped"
            return JobResult("stopped", None if status.checkpoint is None else CheckpointId(status.checkpoint), failure)
        log.warning(
            "job failed, starting again", reason=str(failure), delay_s=decision.delay_s, restart=decision.restart
        )
        metrics.restarts_total.inc()
        status.state, status.message = "restarting", str(failure)
        status.restarts += 1
        if await _stopped_within(options.control.stopping, decision.delay_s):
            status.state = "stopped"
            return JobResult("stopped", None if status.checkpoint is None else CheckpointId(status.checkpoint), failure)


async def _attempt(
    graph: PhysicalGraph,
    options: RunOptions,
    observer: JobObserver,
    store: CheckpointStore,
    directory: Path,
    wanted: _Wanted,
) -> JobResult:
    """One attempt, from claim to end. Raises whatever makes it fail."""
    job = graph.logical.job
    files = RestoredFiles(store, directory / "restored")

    def fetch(manifest: Manifest) -> None:
        """Before it is recorded that this attempt goes on from it: where it does not fit, nothing has happened."""
        committed = store.exists(committed_name(manifest.checkpoint))
        if not (manifest.kind == "finished" and committed):
            fitted(graph, manifest, committed=committed, dropped=options.dropped)
        files.fetch(manifest.files())

    claimed = await asyncio.to_thread(claim, store, wanted.checkpoint, fetch=fetch, begun=wanted.begun)
    await wanted.recorded()
    restored = claimed.restored
    for damage in claimed.skipped:
        log.error(_PASSED_OVER, reason=damage)
        observer.status.failures.append(JobFailure(time.time(), CorruptCheckpoint(f"{_PASSED_OVER}: {damage}")))
    if restored is not None:
        log.info("going on from a checkpoint", checkpoint=restored.checkpoint, attempt=claimed.attempt)
        observer.status.checkpoint, observer.status.ledger = restored.checkpoint, restored.ledger
        observer.metrics.last_completed_checkpoint_id.set(restored.checkpoint)
        observer.metrics.last_completed_checkpoint_timestamp.set(restored.created_ms / 1000)
    committed = restored is not None and await asyncio.to_thread(store.exists, committed_name(restored.checkpoint))
    if restored is not None and restored.kind == "finished" and committed:
        return JobResult("finished", restored.checkpoint, already_finished=True)
    if restored is not None:
        restored = fitted(graph, restored, committed=committed, dropped=options.dropped)

    reporter = Reporter()
    deployment = Deployment(graph, store, directory, claimed.attempt, restored, files, observer, committed=committed)
    try:
        await deployment.build(reporter)
        files.remove()
        reporter.driver = driver = CheckpointDriver(
            graph.logical.pipeline,
            claimed.attempt,
            job.max_parallelism,
            job.checkpoint,
            store,
            deployment.subtasks,
            claimed.next_checkpoint,
            observer,
            restored.ledger if restored else NOTHING_YET,
        )
        if await asyncio.to_thread(newer_attempt, store, claimed.attempt) is not None:
            # To fence now what the newer one has begun would end both.
            raise Superseded(superseded_text(graph.logical.pipeline, claimed.attempt))
        deployment.pending, observer.facts = driver.pending, deployment.facts
        if not await _open(deployment, options.control.stopping):
            return JobResult("stopped", restored.checkpoint if restored else None)
        if restored is not None and restored.kind == "finished":
            await asyncio.to_thread(store.create, committed_name(restored.checkpoint), b"")
            return JobResult("finished", restored.checkpoint)
        observer.metrics.up.set(1)
        observer.status.state, observer.status.message = "running", ""
        caught_up = _caught_up(deployment) if options.until_idle else None
        return await _drive(deployment, driver, options.control, caught_up, claimed, observer.status)
    finally:
        observer.facts = None
        await deployment.close()


async def _open(deployment: Deployment, stop: asyncio.Event) -> bool:
    """Connect everything; False when asked to stop before that is done (a broker may be down for long)."""
    opening = asyncio.create_task(deployment.open())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([opening, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            return False
        opening.result()
        return True
    finally:
        for task in (opening, stopped):
            task.cancel()
        await asyncio.gather(opening, stopped, return_exceptions=True)


async def _drive(
    deployment: Deployment,
    driver: CheckpointDriver,
    control: JobControl,
    caught_up: Callable[[], bool] | None,
    claimed: Claim,
    status: JobStatus,
) -> JobResult:
    """Run subtasks and the checkpoint cycle until the cycle ends; the first failure of any ends all."""
    driving = asyncio.create_task(driver.run(control, caught_up), name="checkpoints")
    running = [asyncio.create_task(subtask.run(), name=_name(subtask)) for subtask in deployment.subtasks]
    overdue = asyncio.create_task(_overdue(control))
    everything: list[asyncio.Task[Any]] = [driving, overdue, *running]
    try:
        done, _ = await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.exception() is not None:
                task.result()
        if driving in done:
            ending: Ending = driving.result()
            return JobResult(ending.status, ending.checkpoint)
        log.warning("stopped without a last checkpoint", reason=f"it did not complete in {_STOP_DEADLINE_S:.0f} s")
        return JobResult("stopped", claimed.restored.checkpoint if claimed.restored else None)
    except Exception as error:
        if not control.stopping.is_set():  # to end the rest may take long: a user's function need not return
            status.state, status.message = "restarting", str(error)
        raise
    finally:
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)


def _name(subtask: Subtask) -> str:
    return f"{subtask.id[0]}[{subtask.id[1]}]"


async def _overdue(control: JobControl) -> None:
    """Until a stop has been under way for too long; a drain takes the time it takes."""
    waited_s = 0.0
    while waited_s < _STOP_DEADLINE_S:
        await control.stopping.wait()
        await asyncio.sleep(_OVERDUE_GRAIN_S)
        waited_s = 0.0 if control.drain else waited_s + _OVERDUE_GRAIN_S


async def _stopped_within(stop: asyncio.Event, delay_s: float) -> bool:
    try:
        async with asyncio.timeout(delay_s):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def _caught_up(deployment: Deployment) -> Callable[[], bool]:
    def check() -> bool:
        now_s = time.monotonic()
        return all(
            source.exhausted.is_set() or (now_s - source.last_rows_s >= _IDLE_S and not source.lag_records())
            for source in deployment.sources
        )

    return check


def _open_store(graph: LogicalGraph, options: RunOptions) -> CheckpointStore:
    url = options.checkpoints or graph.job.checkpoint.storage
    store = CheckpointStore.open(url, graph.pipeline)
    store.sweep()
    return store


def _as_failure(error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    failure = UnexpectedFailure(f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    log.error("unexpected failure", exc_info=error)
    return failure
