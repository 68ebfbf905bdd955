"""The service: many pipelines in one process, each supervised on its own; everything that can be asked of them.

A request has a deadline. What it asked for goes on when that has passed: it was made durable first, and is done.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import structlog

from streamproc.checkpoint.control import SavepointFailed
from streamproc.observability.facts import JobFacts
from streamproc.observability.loop_lag import measure_loop_lag
from streamproc.observability.metrics import MetricRegistry
from streamproc.observability.redaction import Redaction
from streamproc.pipeline.physical import PhysicalGraph
from streamproc.pipeline.suggest import did_you_mean
from streamproc.service.api import Conflict, ServiceFault, UnknownPipeline
from streamproc.service.config import ServiceConfig
from streamproc.service.hosted import HostedPipeline
from streamproc.service.rates import SAMPLE_EVERY_S
from streamproc.service.registry import Registry
from streamproc.service.reports import detail_of, errors_of, is_ready, summary_of
from streamproc.service.supervisor import PipelineSupervisor, as_failure
from streamproc.service.surroundings import Surroundings
from streamproc.service.views import (
    CheckpointView,
    DeadLetterList,
    ErrorList,
    GraphView,
    PipelineDetail,
    PipelineSummary,
    PlanView,
    WhyView,
)

log = structlog.get_logger("streamproc.service")

REQUEST_S: Final = 120.0
CLOSE_S: Final = 90.0
_STARTING_AT_ONCE: Final = 4
_STARTING_S: Final = 5.0
_LAST_CALLS_S: Final = 5.0
# Calls to stores and the like share a pool. With the default (a few more threads than cores) the calls of one
# pipeline whose store does not answer would take every thread, and no other pipeline could take a checkpoint.
# Threads are made as they are needed: a quiet service has a handful.
_THREADS_MAX: Final = 256

T = TypeVar("T")


class NotYet(ServiceFault):
    """504: it goes on, but takes longer than a request may."""

    def __init__(self, what: str) -> None:
        detail = f"{what} takes long; it goes on, and the pipeline's state tells how it ends"
        super().__init__(504, "not-yet", "Not done yet", detail)


class UnknownStep(ServiceFault):
    """404."""

    def __init__(self, name: str, step: str, known: Iterable[str]) -> None:
        hint = did_you_mean(step, known)
        detail = f"{name} has no source, step or sink {step}" + (f"; {hint}" if hint else "")
        super().__init__(404, "unknown-step", "There is no such step", detail)


class Closing(ServiceFault):
    """503: the service ends."""

    def __init__(self) -> None:
        super().__init__(503, "closing", "The service is stopping", "ask again when it has been started again")


class PipelineService:
    """Implements `PipelineApi`. Everything runs on the loop that `open` was called on."""

    def __init__(self, config: ServiceConfig, metrics: MetricRegistry, redaction: Redaction) -> None:
        self._config = config
        self._metrics = metrics
        self._redaction = redaction
        self._pipelines: dict[str, HostedPipeline] = {}
        self._around: Surroundings | None = None
        self._closing = False
        self._pool = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="streamproc")
        self._own: list[asyncio.Task[None]] = []  # of the service itself
        self._changes: set[asyncio.Task[Any]] = set()
        self._creating: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by name

    # -- life

    async def open(self) -> None:
        """Bring back everything that is wanted. Raises DirectoryInUse, DirectoryUnusable."""
        asyncio.get_running_loop().set_default_executor(self._pool)
        registry = await asyncio.to_thread(Registry, self._config.directory)
        self._around = Surroundings(self._config, registry, self._redaction)
        stored = await asyncio.to_thread(registry.load)
        for name, entry in stored.items():
            self._pipelines[name] = self._host(name)
            self._pipelines[name].load(entry)
        self._own = [
            asyncio.create_task(self._sample(), name="rates"),
            asyncio.create_task(measure_loop_lag(self._metrics.event_loop_lag), name="loop-lag"),
            asyncio.create_task(self._bring_back(), name="bring back"),
        ]

    async def close(self, deadline_s: float = CLOSE_S) -> None:
        """Stop everything with a last checkpoint; what is wanted stays, for the next start."""
        self._closing = True
        for task in self._own:
            task.cancel()
        await asyncio.gather(*self._own, return_exceptions=True)
        ending = [asyncio.create_task(hosted.supervisor.end()) for hosted in self._pipelines.values()]
        tasks: set[asyncio.Task[Any]] = {*ending, *self._changes}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        # A change that was under way may have begun a run after all.
        await asyncio.gather(*(hosted.supervisor.end() for hosted in self._pipelines.values()), return_exceptions=True)
        if self._around is not None:
            self._around.registry.close()

    @property
    def opened(self) -> bool:
        """Every pipeline that there was is known."""
        return bool(self._own)

    @property
    def ready(self) -> bool:
        """Every pipeline is as wanted."""
        return self.opened and all(is_ready(hosted) for hosted in self._pipelines.values())

    @property
    def left_behind(self) -> bool:
        """A call that never returns keeps the process from ending by itself."""
        return any(hosted.supervisor.left_behind for hosted in self._pipelines.values())

    async def calls_return(self) -> bool:
        """After `close`, the last thing done on the loop: whether every call on a worker thread comes to its end. A
        store that does not answer may keep one for ever."""
        ending = threading.Thread(target=self._pool.shutdown, daemon=True)
        ending.start()
        until = time.monotonic() + _LAST_CALLS_S
        while ending.is_alive() and time.monotonic() < until:  # noqa: ASYNC110  a thread's end is no event
            await asyncio.sleep(0.02)
        return not ending.is_alive()

    # -- what is asked

    def list(self) -> tuple[PipelineSummary, ...]:
        """By name."""
        return tuple(summary_of(hosted) for _, hosted in sorted(self._pipelines.items()))

    def get(self, name: str) -> PipelineDetail:
        """One."""
        return detail_of(self._hosted(name))

    def errors(self, name: str) -> ErrorList:
        """The last bad records and failures."""
        return errors_of(self._hosted(name))

    def facts(self, name: str) -> JobFacts | None:
        """What the job is doing now."""
        return self._hosted(name).supervisor.facts()

    async def checkpoints(self, name: str) -> tuple[CheckpointView, ...]:
        """Newest first."""
        return await self._hosted(name).look_into_store()

    def graph(self, name: str) -> GraphView:
        """The job graph, live where the pipeline runs."""
        from streamproc.service.graph_view import graph_view

        hosted = self._hosted(name)
        return graph_view(_physical(hosted), hosted.supervisor.facts(), hosted.samples.nodes.rates())

    def why(self, name: str, step: str) -> WhyView:
        """Why nothing comes out of a node."""
        from streamproc.diagnosis.why import why

        hosted = self._hosted(name)
        graph, supervisor = _physical(hosted), hosted.supervisor
        known = [node for vertex in graph.vertices for node in vertex.nodes]
        if step not in known:
            raise UnknownStep(name, step, known)
        return why(supervisor.facts(), graph, supervisor.status, step, rates=hosted.samples.nodes.rates())

    async def dead_letters(self, name: str, sink: str, limit: int) -> DeadLetterList:
        """The newest letters of a Kafka sink of bad records."""
        from streamproc.service.dead_letters import list_letters

        return await list_letters(_physical(self._hosted(name)).logical, sink, limit)

    async def replay(self, name: str, sink: str, ids: Sequence[str] | None) -> int:
        """Send letters back to their sources' topics, once."""
        from streamproc.service.dead_letters import replay_letters

        return await replay_letters(_physical(self._hosted(name)).logical, sink, ids)

    async def plan(self, name: str, yaml: bytes) -> PlanView:
        """What `put` would do."""
        hosted = self._pipelines.get(name) or self._nobody(name)
        return await hosted.plan(await hosted.read(yaml))

    # -- changes

    async def put(
        self, name: str, yaml: bytes, *, plan: str | None = None, drop_state: bool = False
    ) -> tuple[PipelineDetail, bool]:
        """Create or upgrade; and whether it was created."""
        return await self._within_deadline(f"putting {name}", self._put(name, yaml, plan, drop_state))

    async def _put(self, name: str, yaml: bytes, plan: str | None, drop_state: bool) -> tuple[PipelineDetail, bool]:
        while True:
            hosted = self._pipelines.get(name)
            try:
                if hosted is None:
                    hosted, created = await self._create(name, yaml, plan, drop_state)
                else:
                    created = await self._upgrade(hosted, yaml, plan, drop_state)
            except UnknownPipeline:
                continue  # it was deleted while this waited for its turn
            return detail_of(hosted), created

    async def _create(self, name: str, yaml: bytes, plan: str | None, drop_state: bool) -> tuple[HostedPipeline, bool]:
        definition = await self._nobody(name).read(yaml)
        async with self._creating.setdefault(name, asyncio.Lock()):  # of two at the same time one creates
            there = self._pipelines.get(name)
            if there is None:
                hosted = self._host(name)
                try:
                    await hosted.create(definition, plan=plan, drop_state=drop_state)
                except BaseException:
                    self._metrics.forget(name)
                    raise
                self._pipelines[name] = hosted
        if there is not None:
            return there, await self._upgrade(there, yaml, plan, drop_state)
        async with hosted.changing:
            await hosted.begin_if_wanted()
        return hosted, True

    async def _upgrade(self, hosted: HostedPipeline, yaml: bytes, plan: str | None, drop_state: bool) -> bool:
        async with self._turn(hosted):
            definition = await hosted.read(yaml)
            if hosted.record is not None:
                await hosted.upgrade(definition, plan=plan, drop_state=drop_state)
                return False
            await hosted.create(definition, plan=plan, drop_state=drop_state)
            await hosted.begin_if_wanted()
            return True

    async def delete(self, name: str) -> None:
        """Stop with a last checkpoint, and forget."""

        await self._within_deadline(f"deleting {name}", self._delete(self._hosted(name)))

    async def _delete(self, hosted: HostedPipeline) -> None:
        async with self._turn(hosted):
            await hosted.delete()
            self._pipelines.pop(hosted.name)
            self._metrics.forget(hosted.name)
        local = self._config.directory / "state" / hosted.name
        await asyncio.to_thread(shutil.rmtree, local, ignore_errors=True)

    async def stop(self, name: str, *, drain: bool = False) -> PipelineDetail:
        """Stop with a last checkpoint, or after draining."""
        hosted = self._hosted(name)
        if drain:
            await self._within_deadline(f"draining {name}", self._drain(hosted))
        else:
            await self._within_deadline(f"stopping {name}", self._in_turn(hosted, hosted.stop()))
        return detail_of(hosted)

    async def _drain(self, hosted: HostedPipeline) -> None:
        await self._in_turn(hosted, hosted.drain())
        await hosted.supervisor.ended()  # not in turn: a stop may come in between, and wins
        await hosted.look_into_store()

    async def start(self, name: str, *, restore_from: int | None = None) -> PipelineDetail:
        """Go on from the newest checkpoint, or from this one."""
        hosted = self._hosted(name)
        await self._within_deadline(f"starting {name}", self._in_turn(hosted, hosted.start(restore_from)))
        return detail_of(hosted)

    async def rescale(self, name: str, parallelism: int) -> PipelineDetail:
        """Go on with other subtasks."""
        hosted = self._hosted(name)
        await self._within_deadline(f"rescaling {name}", self._in_turn(hosted, hosted.rescale(parallelism)))
        return detail_of(hosted)

    async def savepoint(self, name: str) -> CheckpointView:
        """A checkpoint that is kept, taken while the pipeline goes on."""
        hosted = self._hosted(name)
        if hosted.supervisor.status.state != "running":
            raise Conflict(f"{name} is {hosted.supervisor.status.state}: a savepoint is taken of a running pipeline")
        try:
            taken = await self._within_deadline(f"the savepoint of {name}", hosted.supervisor.savepoint())
        except SavepointFailed as failure:
            raise ServiceFault(503, "savepoint-failed", "There is no savepoint", str(failure)) from failure
        found = [view for view in await hosted.look_into_store() if view.id == taken]
        if not found:
            detail = f"savepoint {taken} has completed, but the checkpoint store cannot be read"
            raise ServiceFault(503, "store-unavailable", "The store does not answer", detail)
        return found[0]

    async def release_savepoint(self, name: str, savepoint: int) -> None:
        """It is a checkpoint like others from now on."""
        hosted = self._hosted(name)
        if not any(view.id == savepoint and view.kind == "savepoint" for view in await hosted.look_into_store()):
            detail = f"there is no savepoint {savepoint} of {name}"
            raise ServiceFault(404, "unknown-savepoint", "There is no such savepoint", detail)
        await self._within_deadline(f"the release of savepoint {savepoint} of {name}", hosted.release(savepoint))
        await hosted.look_into_store()

    # -- turns, deadlines

    async def _within_deadline(self, what: str, change: Coroutine[Any, Any, T]) -> T:
        """What `change` gives. It goes on when the deadline has passed, or when whoever asked has gone."""
        if self._closing:
            change.close()
            raise Closing
        task = asyncio.create_task(change, name=what)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.wait({task}, timeout=REQUEST_S)
        if not task.done():
            task.add_done_callback(_told_in_the_log)
            raise NotYet(what)
        return task.result()

    async def _in_turn(self, hosted: HostedPipeline, change: Coroutine[Any, Any, T]) -> T:
        try:
            async with self._turn(hosted):
                return await change
        finally:
            change.close()

    @asynccontextmanager
    async def _turn(self, hosted: HostedPipeline) -> AsyncIterator[None]:
        """Changes of one pipeline come one after the other."""
        async with hosted.changing:
            if hosted.gone:
                raise UnknownPipeline(hosted.name)
            yield

    def _hosted(self, name: str) -> HostedPipeline:
        try:
            return self._pipelines[name]
        except KeyError:
            raise UnknownPipeline(name) from None

    def _nobody(self, name: str) -> HostedPipeline:
        """A pipeline that is not there: what would be, without a trace in the metrics."""
        return self._unwatched(name, MetricRegistry())

    def _unwatched(self, name: str, metrics: MetricRegistry) -> HostedPipeline:
        assert self._around is not None, "open() comes first"
        return HostedPipeline(name, self._around, PipelineSupervisor(name, metrics, self._around.work_directory))

    def _host(self, name: str) -> HostedPipeline:
        hosted = self._unwatched(name, self._metrics)
        wanted = self._metrics.gauge("wanted", name)
        wanted.set_function(lambda: hosted.record is not None and hosted.record.wanted == "running")
        return hosted

    # -- in the background

    async def _bring_back(self) -> None:
        """All at once would keep the loop from everything else; in the order of names. What takes long (a store that
        does not answer, user code that loads for ever) keeps no other pipeline waiting."""
        places = asyncio.Semaphore(_STARTING_AT_ONCE)

        async def bring_back(hosted: HostedPipeline) -> None:
            async with places:
                beginning = asyncio.create_task(self._bring_one_back(hosted), name=f"bring back {hosted.name}")
                self._own.append(beginning)
                await asyncio.wait({beginning}, timeout=_STARTING_S)

        await asyncio.gather(*map(bring_back, list(self._pipelines.values())))

    async def _bring_one_back(self, hosted: HostedPipeline) -> None:
        async with hosted.changing:
            try:
                await hosted.bring_back()
            except Exception as error:
                log.error("a pipeline could not be brought back", pipeline=hosted.name, exc_info=error)
                hosted.supervisor.fail(as_failure(error))
            finally:
                hosted.returning = False

    async def _sample(self) -> None:
        while True:
            now_s = time.monotonic()
            for hosted in self._pipelines.values():
                hosted.samples.look(now_s, hosted.supervisor.status, hosted.supervisor.facts())
            await asyncio.sleep(SAMPLE_EVERY_S)


def _physical(hosted: HostedPipeline) -> PhysicalGraph:
    if hosted.definition is None or hosted.definition.physical is None:
        raise Conflict(f"the file of {hosted.name} has errors: {hosted.supervisor.status.message}")
    return hosted.definition.physical


def _told_in_the_log(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("a change has failed after its request had timed out", change=task.get_name(), reason=str(error))
