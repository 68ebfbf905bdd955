"""The same pipeline at another parallelism after each crash or stop: state, splits and transactions find their way."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.transactions import transaction_states
from tests.integration.job import Job

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

STAGES = ((1, "kill"), (2, "stop"), (3, "kill"), (5, "stop"), (2, "kill"), (1, "finish"))


def test_rescale_with_lingering_transactions(kafka: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(kafka, tmp_path, partitions=4)
    for parallelism, end in STAGES:
        orders.pipeline["job"]["parallelism"] = parallelism
        orders.write()
        seen = len(orders.copied("read_uncommitted"))
        orders.produce(300)
        job = Job(tmp_path, orders.file)
        try:
            job.until(lambda seen=seen: len(orders.copied("read_uncommitted")) > seen)  # type: ignore[misc]
            orders.produce(300)
            if end == "kill":
                job.kill()
                continue
            if end == "finish":
                orders.close_windows()
                job.until(lambda: orders.sums() == orders.expected_sums())
            began_s = time.monotonic()
            assert job.stop() == 0, job.log()
            assert time.monotonic() - began_s < 10
            assert open_transactions(orders) == set(), "a last checkpoint has committed all"
        finally:
            job.kill()
    orders.check()


def open_transactions(orders: KafkaOrders) -> set[str]:
    """Transactional ids of the pipeline's sinks under which something is not yet ended."""
    states = asyncio.run(transaction_states(orders.broker, orders.name))
    assert states
    return {name for name, state in states.items() if state not in ("Empty", "CompleteCommit", "CompleteAbort")}
