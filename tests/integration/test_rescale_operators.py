"""Every stateful operator at another parallelism after each stop or kill: as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker import Broker
from tests.integration.job import Job
from tests.integration.operators_job import Operators

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

STAGES = ((1, "stop"), (2, "stop"), (3, "kill"))


def test_rescale(kafka: Broker, tmp_path: Path) -> None:
    operators = Operators(kafka, tmp_path, "rescaled")
    for parallelism, end in STAGES:
        operators.write(parallelism)
        seen = operators.written()
        operators.produce(2_000)
        job = Job(tmp_path, operators.file)
        try:
            job.until(lambda seen=seen: operators.written() > seen)  # type: ignore[misc]
            operators.produce(1_000)
            if end == "stop":
                assert job.stop() == 0, job.log()
        finally:
            job.kill()
    operators.close_windows()
    operators.write(1)
    Job(tmp_path, operators.file, "--until-idle").wait(240)
    operators.check()


@pytest.mark.parametrize(("parallelism", "max_rows"), [(1, 100), (3, 5_000)])
def test_batches_and_parallelism_change_nothing(kafka: Broker, tmp_path: Path, parallelism: int, max_rows: int) -> None:
    """Bounded input, most of it there before the job is."""
    operators = Operators(kafka, tmp_path, f"bounded-{parallelism}")
    operators.produce(6_000)
    operators.close_windows()
    operators.write(parallelism, max_rows=max_rows, stop="latest")
    assert Job(tmp_path, operators.file).wait(240)["late_records"] == 0
    operators.check()
