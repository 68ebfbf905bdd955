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


def waiting(run: Run) -> int:
    """Log lines about a broker that does not answer."""
    return len(run.told("broker unreachable")) + len(run.told("broker does not acknowledge"))


async def test_killed_and_started_again(broker: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        await asyncio.to_thread(orders.produce, 500)  # as like as not, still on their way
        began_s = time.monotonic()
        await asyncio.to_thread(broker.kill)
        await run.until(lambda: waiting(run) >= 3)
        await run.until(lambda: run.status.state == "waiting" and run.status.message.startswith("source orders: "))
        assert "the broker does not answer" in run.status.message
        assert not run.status.ready
        assert broker.bootstrap in run.told("broker unreachable")[0]["brokers"]
        await asyncio.to_thread(broker.start)
        down_s = time.monotonic() - began_s
        await run.until(lambda: (run.status.state, run.status.message) == ("running", ""))
        await asyncio.to_thread(orders.produce, 500)
        await finish(orders, run)
        assert run.status.restarts == 0
        assert waiting(run) <= 3 * (4 + down_s / 2), "a flood: a source and two sinks, with growing pauses"
        assert run.told("broker reachable again")


async def test_hangs_for_seconds(broker: Broker, tmp_path: Path) -> None:
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        await asyncio.to_thread(orders.produce, 500)
        broker.pause()
        await asyncio.sleep(6)  # sockets stay open, nobody answers; from 9 s on, a broker of one forgets itself
        broker.resume()
        await asyncio.to_thread(orders.produce, 500)
        await finish(orders, run)
        assert run.status.restarts == 0
        assert waiting(run) <= 6


async def test_down_when_asked_to_stop_and_at_the_start(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A last checkpoint is waited for, but not for ever; what it would have held is done by the next run."""
    monkeypatch.setattr(embedded, "_STOP_DEADLINE_S", 1.0)
    orders = KafkaOrders(broker, tmp_path)
    async with running(orders.file) as run:
        await asyncio.to_thread(orders.produce, 500)
        await run.until(lambda: run.status.records_in >= 500)
        await asyncio.to_thread(orders.produce, 500)
        await asyncio.to_thread(broker.kill)
        began_s = time.monotonic()
        assert (await run.stop()).status == "stopped"
        assert time.monotonic() - began_s < 10
    async with running(orders.file) as run:
        await run.until(lambda: waiting(run) >= 3)
        await run.until(lambda: "the broker does not answer" in run.status.message)
        assert run.status.state == "starting"
        assert run.status.message.startswith("sink ")
        assert not run.status.ready
        began_s = time.monotonic()
        assert (await run.stop()).status == "stopped"
        assert time.monotonic() - began_s < 10
        assert len(run.logs) <= waiting(run) + 1, "beside the checkpoint it goes on from, there is nothing to say"
    async with running(orders.file) as run:
        await run.until(lambda: waiting(run) >= 2)
        await asyncio.to_thread(broker.start)
        await finish(orders, run)
        assert run.status.restarts == 0
