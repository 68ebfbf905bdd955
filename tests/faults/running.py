"""A pipeline running in this process: what it says is at hand, and it can be made to end like a killed one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import structlog

from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.planner import load_pipeline
from streamproc.runners.embedded import JobResult, RunOptions, run_pipeline


class Run:
    """One run; `logs` are structlog's entries since it began."""

    def __init__(self, status: JobStatus, options: RunOptions, task: asyncio.Task[JobResult], logs: list[Any]) -> None:
        self.status = status
        self.logs: list[MutableMapping[str, Any]] = logs
        self.control = options.control
        self._task = task
        self._give_up_at_s = 0.0

    async def until(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """Until `condition` holds; fails when the run ends before that."""
        self._give_up_at_s = time.monotonic() + timeout_s
        while not condition():
            self._check()
            await asyncio.sleep(0.01)

    async def until_seen(self, condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        """`until` for a condition that looks outside and takes its time: it is asked on a thread."""
        self._give_up_at_s = time.monotonic() + timeout_s
        while not await asyncio.to_thread(condition):
            self._check()
            await asyncio.sleep(0.05)

    def _check(self) -> None:
        assert not self._task.done(), f"it ended: {self._task.result()}\n{self._told()}"
        assert time.monotonic() < self._give_up_at_s, f"not in time: {self.status}\n{self._told()}"

    async def checkpoints(self, count: int = 1) -> None:
        """Until so many more checkpoints have completed; the last of two was triggered after the call."""
        for _ in range(count):
            before = self.status.checkpoint
            await self.until(lambda before=before: self.status.checkpoint != before)  # type: ignore[misc]

    @property
    def going_on(self) -> bool:
        """Whether it has not ended."""
        return not self._task.done()

    async def result(self, timeout_s: float = 30.0) -> JobResult:
        """How it ends by itself."""
        done, _ = await asyncio.wait([self._task], timeout=timeout_s)
        assert done, f"still running after {timeout_s} s: {self.status}\n{self._told()}"
        return self._task.result()

    async def stop(self) -> JobResult:
        """As SIGTERM does it."""
        self.control.stop()
        return await self.result()

    async def crash(self) -> None:
        """End at once: no last checkpoint, prepared work stays as it is."""
        self._task.cancel()
        done, _ = await asyncio.wait([self._task], timeout=20)
        assert done, f"it does not end when cancelled:\n{_stacks()}"

    def told(self, event: str) -> list[MutableMapping[str, Any]]:
        """Log entries whose event contains this."""
        return [entry for entry in self.logs if event in entry["event"]]

    def _told(self) -> str:
        return "\n".join(str(entry) for entry in self.logs[-30:])


@asynccontextmanager
async def running(
    file: Path, *, until_idle: bool = False, restore_from: int | None = None, dropped: frozenset[str] = frozenset()
) -> AsyncIterator[Run]:
    """Run a pipeline file; what still runs at the end is ended as `Run.crash` does."""
    graph = load_pipeline(file)
    status = JobStatus(graph.pipeline)
    observer = JobObserver(PipelineMetrics(MetricRegistry(), graph.pipeline), status)
    options = RunOptions(
        until_idle=until_idle,
        work_directory=file.parent / "state",
        restore_from=restore_from,  # type: ignore[arg-type]
        dropped=dropped,
    )
    with structlog.testing.capture_logs() as logs:
        run = Run(status, options, asyncio.create_task(run_pipeline(graph, options, observer)), logs)
        try:
            yield run
        finally:
            await run.crash()


def _stacks() -> str:
    text = StringIO()
    for task in asyncio.all_tasks():
        task.print_stack(file=text)
    return text.getvalue()
