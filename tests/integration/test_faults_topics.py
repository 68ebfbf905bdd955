"""Topics that are missing, vanish, are made anew, lose records or grow, while a pipeline runs or between two runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from streamproc.connectors.kafka import client
from streamproc.connectors.kafka.failure import OffsetUnavailable, TopicMissing, TopicRecreated
from streamproc.connectors.kafka.source import KafkaSource
from tests.broker import Broker
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.running import Run, running

pytestmark = pytest.mark.kafka


@pytest.fixture
def orders(kafka: Broker, tmp_path: Path) -> KafkaOrders:
    return KafkaOrders(kafka, tmp_path)


async def copied(orders: KafkaOrders, run: Run) -> None:
    """Until all that was produced has been copied and committed."""
    await run.until_seen(lambda: len(orders.copied()) >= len(orders.made))
    await run.checkpoints(1)


async def fails(run: Run, failure: type[Exception], *words: str) -> None:
    """Within 30 s, for that reason, without trying again."""
    result = await run.result(30)
    assert isinstance(result.failure, failure), result
    for word in words:
        assert word in str(result.failure)
    assert run.status.restarts == 0
    assert run.status.state == "failed"


@pytest.mark.parametrize(("kind", "role"), [("sources", "orders"), ("sinks", "totals")])
async def test_missing_at_the_start(orders: KafkaOrders, monkeypatch: pytest.MonkeyPatch, kind: str, role: str) -> None:
    monkeypatch.setattr(client, "TOPIC_WAIT_S", 1.0)
    orders.pipeline[kind][role]["topic"] = orders.topics[role] + "s"
    orders.write()
    async with running(orders.file) as run:
        await fails(run, TopicMissing, f"'{orders.topics[role]}s'", f"Did you mean '{orders.topics[role]}'", role)


@pytest.mark.parametrize("role", ["orders", "copies"])
async def test_deleted_while_running(orders: KafkaOrders, role: str) -> None:
    orders.produce(100)
    async with running(orders.file) as run:
        await copied(orders, run)
        orders.broker.delete_topic(orders.topics[role])
        if role == "copies":
            await asyncio.to_thread(orders.produce, 100)
        await fails(run, TopicMissing, orders.topics[role], role)


async def test_created_again_between_two_runs(orders: KafkaOrders) -> None:
    orders.produce(100)
    async with running(orders.file) as run:
        await copied(orders, run)
        await run.stop()
    orders.broker.delete_topic(orders.topics["orders"])
    orders.broker.create_topic(orders.topics["orders"], orders.partitions)
    async with running(orders.file) as run:
        await fails(run, TopicRecreated, orders.topics["orders"], "created again")


async def test_records_deleted_before_they_were_read(orders: KafkaOrders) -> None:
    orders.produce(100)
    async with running(orders.file) as run:
        await copied(orders, run)
        await run.stop()
    orders.produce(100)
    ends = [m.offset() for m in orders.broker.read(orders.topics["orders"]) if m.partition() == 0]
    orders.broker.delete_records(orders.topics["orders"], 0, before=(ends[-1] or 0) - 3)
    async with running(orders.file) as run:
        place = f"{orders.topics['orders']}-0"
        await fails(run, OffsetUnavailable, place, "were deleted before they were read", "retention")
    assert sorted(orders.copied()) == list(range(100)), "nothing of what came after the gap"


async def test_a_partition_that_is_added_is_read_from_its_start(
    orders: KafkaOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While running, and while nothing runs; `start: latest` is about the topic as it was at first."""
    defaults = KafkaSource.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "discovery_s", 0.3)
    orders.pipeline["sources"]["orders"]["start"] = "latest"
    orders.pipeline["job"]["parallelism"] = 2
    orders.write()
    topic = orders.topics["orders"]

    def add_partition(number: int) -> None:
        orders.broker.add_partitions(topic, number + 1)
        orders.partitions = number + 1
        values: list[bytes | None] = [json.dumps(orders.order(account=number)).encode() for _ in range(20)]
        orders.broker.produce(topic, values, partition=number)

    async with running(orders.file) as run:
        await run.checkpoints(1)
        await asyncio.to_thread(orders.produce, 100)
        await copied(orders, run)
        await asyncio.to_thread(add_partition, 2)
        await copied(orders, run)
        await asyncio.to_thread(add_partition, 3)
        await run.crash()
    add_partition(4)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 100)
        await copied(orders, run)
        await asyncio.to_thread(orders.close_windows)
        await run.until_seen(lambda: orders.sums() == orders.expected_sums())
        await run.stop()
    orders.check()
