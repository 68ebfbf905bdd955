"""Slow sinks, hot keys and silent partitions: bounded, right, and going on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import polars as pl
import pytest

from streamproc.connectors.blackhole import BlackholeWriter
from tests.broker import Broker
from tests.faults.kafka_orders import BASE_MS, FAR_MS, KafkaOrders
from tests.faults.running import running

BATCH_ROWS = 1_000

SLOW = """
version: 1
pipeline: slow
job:
  checkpoint: {{every: 100ms, timeout: 10s, storage: "file:{folder}/checkpoints"}}
  restart: {{strategy: none}}
  batch: {{max_rows: {rows}}}
sources:
  numbers: {{type: datagen, columns: {{id: {{sequence: {{}}}}}}}}
sinks:
  out: {{type: blackhole, input: numbers, parallelism: 2}}
"""


async def test_a_slow_sink_pauses_the_source_and_checkpoints_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(writer: BlackholeWriter, frame: pl.DataFrame) -> None:
        await asyncio.sleep(0.02)

    monkeypatch.setattr(BlackholeWriter, "write", slowly)
    file = tmp_path / "pipeline.yaml"
    file.write_text(SLOW.format(folder=tmp_path, rows=BATCH_ROWS))
    async with running(file) as run:
        on_the_way = 0
        while run.status.records_out < 60 * BATCH_ROWS:
            before = run.status.records_out
            await run.until(lambda before=before: run.status.records_out > before)  # type: ignore[misc]
            on_the_way = max(on_the_way, run.status.records_in - run.status.records_out)
        assert 0 < on_the_way <= 10 * BATCH_ROWS, "two full channels, a batch at each end"
        assert run.status.checkpoint is not None
        assert run.status.checkpoint >= 3
        assert not run.told("checkpoint aborted")
        await run.stop()


@pytest.mark.kafka
async def test_hot_keys(kafka: Broker, tmp_path: Path) -> None:
    """Half of the orders are of one account, a quarter of the next two …, through three subtasks."""
    orders = KafkaOrders(kafka, tmp_path, partitions=3)
    orders.pipeline["job"]["parallelism"] = 3
    orders.write()
    per_partition: list[list[bytes | None]] = [[], [], []]
    for number in range(3_000):
        account = min(int(orders.random.paretovariate(1.0)) - 1, 49)
        per_partition[account % 3].append(json.dumps(orders.order(account)).encode())
        if number % 500 == 499:
            for partition, values in enumerate(per_partition):
                orders.broker.produce(orders.topics["orders"], values, partition=partition)
            per_partition = [[], [], []]
    orders.close_windows()
    async with running(orders.file) as run:
        await run.until_seen(lambda: orders.sums() == orders.expected_sums())
        await run.stop()
        assert run.status.late_records == 0
    orders.check()


@pytest.mark.kafka
async def test_partitions_are_not_idle_while_the_broker_is_away(kafka: Broker, tmp_path: Path) -> None:
    """One partition is far behind the other, and both are silent for longer than `idle_after`: they cannot be heard."""
    orders = KafkaOrders(kafka, tmp_path, partitions=2)
    orders.pipeline["sources"]["orders"]["event_time"]["idle_after"] = "4s"
    orders.write()
    orders.produce(100)
    end = {"id": -1, "account": "end", "amount": 0, "at": BASE_MS + FAR_MS}
    kafka.produce(orders.topics["orders"], [json.dumps(end).encode()], partition=0)
    async with running(orders.file) as run:
        await run.checkpoints(2)
        kafka.pause()
        await asyncio.sleep(6)
        kafka.resume()
        await asyncio.to_thread(orders.produce, 100)
        orders.close_windows()
        await run.until_seen(lambda: orders.sums() == orders.expected_sums())
        await run.stop()
        assert run.status.late_records == 0


@pytest.mark.kafka
@pytest.mark.parametrize("parallelism", [1, 2])
async def test_a_silent_partition_holds_nobody_back_for_longer_than_said(
    kafka: Broker, tmp_path: Path, parallelism: int
) -> None:
    """Rows that come when it speaks again, from before what was closed meanwhile, are late."""
    orders = KafkaOrders(kafka, tmp_path, partitions=2)
    orders.pipeline["sources"]["orders"]["event_time"]["idle_after"] = "500ms"
    orders.pipeline["job"]["parallelism"] = parallelism
    orders.write()
    topic = orders.topics["orders"]

    def produce(partition: int, *rows: dict[str, object]) -> None:
        kafka.produce(topic, [json.dumps(row).encode() for row in rows], partition=partition)

    produce(0, *(orders.order(account=2) for _ in range(100)))
    end = {"id": -1, "account": "end", "amount": 0, "at": BASE_MS + FAR_MS}
    produce(0, end)
    async with running(orders.file) as run:
        await run.until_seen(lambda: orders.sums() == orders.expected_sums())
        late = orders.order(account=1)
        await asyncio.to_thread(produce, 1, late)
        await run.until(lambda: run.status.late_records == 1)
        await run.stop()
    assert sorted(orders.copied()) == list(range(101))
