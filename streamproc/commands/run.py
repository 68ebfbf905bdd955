"""`run`: one pipeline, here, with its progress, metrics and signals around it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console

from operators.element import CheckpointId
from state.store import CheckpointStore
from streamproc.checkpoint.compatibility import IncompatibleCheckpoint
from streamproc.checkpoint.control import JobControl
from streamproc.checkpoint.recovery import UnknownCheckpoint
from streamproc.commands.session import DONE, FAILED, WRONG_INPUT, Session, describe, print_json
from streamproc.connectors import load_connectors
from streamproc.observability.http import LOOPBACK, metrics_served
from streamproc.observability.logging import configure_logging
from streamproc.observability.loop_lag import loop_lag_measured
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.progress import progress_shown
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.logical import LogicalGraph
from streamproc.pipeline.planner import load_pipeline
from streamproc.process_settings import new_loop, set_memory
from streamproc.runners.embedded import JobResult, RunOptions, run_pipeline
from streamproc.stop_signals import ABORTED, stop_signals

log = structlog.get_logger("streamproc.run")


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The options of the command."""

    until_idle: bool = False
    checkpoints: str | None = None
    restore_from: str = "latest"
    metrics_port: int | None = None  # None: not served
    metrics_host: str = LOOPBACK
    as_json: bool = False
    log_level: str | None = None


def run_file(session: Session, file: Path, request: RunRequest) -> int:
    """Run the pipeline of `file`; gives the exit code. Raises InvalidPipeline, StoreRefused,
    or what keeps it from starting."""
    configure_logging(session.redaction, "debug" if session.debug else request.log_level)
    graph = load_pipeline(file)
    session.redaction.add(graph.secrets)
    if request.checkpoints is not None:
        CheckpointStore.open(request.checkpoints)  # a URL that cannot be used is wrong input, and no failed pipeline
    for warning in graph.warnings:
        session.say(f"warning: {warning}")
    outcome = run_graph(session, graph, request)
    if request.as_json:
        print_json(session.redaction.value(outcome.as_json()))
    return _exit_code(session, graph.pipeline, outcome.result)


def _exit_code(session: Session, pipeline: str, result: JobResult) -> int:
    if result.already_finished:
        session.say(
            f"streamproc: {pipeline} finished in an earlier run with these checkpoints; there is nothing left to do"
        )
    if result.status != "failed":
        return DONE
    session.say(f"streamproc: {pipeline} failed: {_reason(result)}")
    return WRONG_INPUT if isinstance(result.failure, UnknownCheckpoint | IncompatibleCheckpoint) else FAILED


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, and what it did."""

    status: JobStatus
    result: JobResult
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        failure = self.result.failure
        return {
            "pipeline": self.status.pipeline,
            "status": self.result.status,
            "checkpoint": self.result.checkpoint,
            "records_in": self.status.records_in,
            "records_out": self.status.records_out,
            "late_records": self.status.late_records,
            "error_records": self.status.error_records,
            "restarts": self.status.restarts,
            "seconds": round(self.seconds, 3),
            "failure": None
            if failure is None
            else {
                "type": type(failure).__name__,
                "message": describe(failure),
                "acts": failure.acts,
                "retry_helps": failure.retry_helps,
            },
        }


def run_graph(session: Session, graph: LogicalGraph, request: RunRequest) -> Outcome:
    """Run to the end, or to the first signal's checkpoint."""
    load_connectors(graph)
    set_memory()
    status = JobStatus(graph.pipeline)
    began = time.monotonic()
    with asyncio.Runner(loop_factory=new_loop) as runner:
        result = runner.run(_run(session, graph, request, status))
    return Outcome(status, result, time.monotonic() - began)


async def _run(session: Session, graph: LogicalGraph, request: RunRequest, status: JobStatus) -> JobResult:
    registry = MetricRegistry()
    observer = JobObserver(PipelineMetrics(registry, graph.pipeline), status)
    console = Console(stderr=True)
    control = JobControl()
    options = RunOptions(
        checkpoints=request.checkpoints,
        until_idle=request.until_idle,
        restore_from=None if request.restore_from == "latest" else CheckpointId(int(request.restore_from)),
        control=control,
    )
    async with AsyncExitStack() as around:
        await around.enter_async_context(loop_lag_measured(registry.event_loop_lag))
        if request.metrics_port is not None:
            host = request.metrics_host
            port = await around.enter_async_context(
                metrics_served(registry, lambda: [status], request.metrics_port, host)
            )
            shown = f"[{host}]" if ":" in host else host  # an IPv6 address
            log.info("metrics and health are served", url=f"http://{shown}:{port}/metrics")
        around.enter_context(_stopped_by_signals(session, control, console))
        await around.enter_async_context(progress_shown(status, console, live=_may_draw(graph, console)))
        return await run_pipeline(graph, options, observer)


@contextmanager
def _stopped_by_signals(session: Session, control: JobControl, console: Console) -> Iterator[None]:
    """First signal: a last checkpoint, then the end. Second: the end at once, which loses nothing that a
    checkpoint holds: the next run treats it as a crash."""

    def stop() -> None:
        control.stop()
        session.say("streamproc: taking a last checkpoint, then stopping; once more stops at once")

    def at_once() -> None:
        console.show_cursor()
        session.say("streamproc: stopped at once")
        os._exit(ABORTED)

    with stop_signals(stop, at_once):
        yield


def _may_draw(graph: LogicalGraph, console: Console) -> bool:
    """A line that is drawn over and over would tear what a print sink writes on the same terminal."""
    prints = any(sink.config.type == "print" for sink in graph.sinks.values())
    return console.is_terminal and not (prints and sys.stdout.isatty())


def _reason(result: JobResult) -> str:
    if result.failure is None:
        return "for a reason it did not give"
    text = describe(result.failure)
    return f"{text} (trying again may help)" if result.failure.retry_helps else text
