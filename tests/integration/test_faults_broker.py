"""A broker that dies, hangs or is not there yet: waited for with few words, no restart loop, exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamproc.runners import embedded
from tests.broker import Broker
from tests.broker import running as broker_running
from tests.faults.kafka_orders import KafkaOrders
from tests.faults.running import Run, running

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(kafka: Broker) -> Iterator[Broker]:
    """One to be killed. (`kafka` says whether there can be one at all.)"""
    with broker_running() as broker:
        yield broker


async def finish(orders: KafkaOrders, run: Run) -> None:
    """Everything made so far is through, once."""
    await asyncio.to_thread(orders.close_windows)
    expected = len(orders.made) + len(orders.expected_sums())
    await run.until(lambda: run.status.records_out >= expected)
    assert (await run.stop()).status == "stopped"
    await asyncio.to_thread(orders.check)


def unreachable(run: Run) -> int:
    return len(run.told("broker unreachable")) + len(run.told("broker does not acknowledge"))


async def test_killed_and_started_again(broker: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        began = time.monotonic()
        await asyncio.to_thread(broker.kill)
        await run.until(lambda: unreachable(run) >= 3)
        await asyncio.to_thread(broker.start)
        down_s = time.monotonic() - began
        await asyncio.to_thread(orders.produce, 500)
        await finish(orders, run)
        print(down_s, run.status.restarts, unreachable(run), [e["event"] + str(e.get("needed_by")) for e in run.logs])
        assert run.status.restarts == 0


async def test_stopped_for_eight_seconds(broker: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        broker.pause()
        await asyncio.sleep(8)
        broker.resume()
        await asyncio.to_thread(orders.produce, 500)
        await finish(orders, run)
        print(run.status.restarts, unreachable(run), [e["event"] + str(e.get("needed_by")) for e in run.logs])
        assert run.status.restarts == 0


async def test_down_at_the_start(broker: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(broker, tmp_path)
    await asyncio.to_thread(orders.produce, 500)
    await asyncio.to_thread(broker.kill)
    async with running(orders.file) as run:
        await run.until(lambda: unreachable(run) >= 4)
        assert not run.status.ready
        await asyncio.to_thread(broker.start)
        await finish(orders, run)
        print(run.status.restarts, unreachable(run), [e["event"] + str(e.get("needed_by")) for e in run.logs])
        assert run.status.restarts == 0


async def test_asked_to_stop_while_it_is_down(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_STOP_DEADLINE_S", 1.0)
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        await asyncio.to_thread(broker.kill)
        began = time.monotonic()
        result = await run.stop()
        print(time.monotonic() - began)
        assert result.status == "stopped"
        assert run.told("stopped without a last checkpoint")
        assert time.monotonic() - began < 8
    async with running(orders.file) as run:  # still down: before anything is connected
        await run.until(lambda: unreachable(run) >= 1)
        began = time.monotonic()
        assert (await run.stop()).status == "stopped"
        assert time.monotonic() - began < 5
    await asyncio.to_thread(broker.start)
    async with running(orders.file) as run:
        await finish(orders, run)
