"""The cycle ends when it is told to, at whatever moment."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from operators.element import CheckpointId
from state.store import CheckpointStore
from streamproc.checkpoint.control import JobControl
from streamproc.checkpoint.driver import CheckpointDriver
from streamproc.observability.metrics import MetricRegistry, PipelineMetrics
from streamproc.observability.status import JobObserver, JobStatus
from streamproc.pipeline.spec import CheckpointSpec


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_comes_together_with_an_event_is_not_forgotten(tmp_path: Path, steps: int) -> None:
    driver = CheckpointDriver(
        "p",
        1,
        128,
        CheckpointSpec(),
        CheckpointStore.open(str(tmp_path)),
        [],
        CheckpointId(1),
        JobObserver(PipelineMetrics(MetricRegistry(), "p"), JobStatus("p")),
    )
    running = asyncio.create_task(driver.run(JobControl(), None))
    for _ in range(5):
        await asyncio.sleep(0)  # it waits for acknowledgements
    driver.decline(CheckpointId(99), "of no checkpoint we know", refused=False)
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running], timeout=2)
    assert running.cancelled()
